/** The version of Kubernetes whose API is spoken here: what clients compare themselves and their features with. */
const dialect = { major: '1', minor: '32' }

/**
 * The answer of `/version` (version.Info). As other servers of Kubernetes' API do, it names the dialect first and the
 * program behind the plus sign.
 * @param version of this program
 * @param clusterId what bearer tokens can be bound to, where there is anything: no member of Kubernetes' own
 */
export function versionInfo(version: string, clusterId?: string) {
  return {
    ...dialect,
    gitVersion: `v${dialect.major}.${dialect.minor}.0+plasmavmc-${version}`,
    ...{ gitCommit: '', gitTreeState: '', buildDate: '1970-01-01T00:00:00Z' },
    ...{ goVersion: '', compiler: `node ${process.version}` },
    platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
    ...(clusterId !== undefined && { clusterId }),
  }
}
