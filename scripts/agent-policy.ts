/**
 * What RBAC can't say: that an agent writes nothing but what is its host's. The rules of src/auth/agent.ts once more, as
 * a ValidatingAdmissionPolicy.
 */
import { stringify } from 'yaml'
import { hostsGroup, hostUserPrefix } from '../src/auth/agent.ts'
import { group } from '../src/resources/define.ts'
import { hostLeaseName, systemNamespace } from '../src/resources/host-lease.ts'

export const policyFile = 'deploy/kubernetes/base/agent-policy.yaml'

const apiVersion = 'admissionregistration.k8s.io/v1'
const name = 'plasmavmc-agent'
const account = `system:serviceaccount:${systemNamespace}:${name}`
/** Kubernetes names the node of a pod, or the Node itself, that a token of a service account is bound to. */
const nodeKey = 'authentication.kubernetes.io/node-name'

const text = (value: string) => `'${value}'`
const user = 'request.userInfo'

/** Whether an agent asks: as the account of the pods, or by a certificate of a host outside of the cluster. */
const isAgent = `${user}.username == ${text(account)} || (has(${user}.groups) && ${text(hostsGroup)} in ${user}.groups)`

/** The host that it is the agent of; '' where nothing says so, as with a token that is bound to nothing. */
const hostOfUser = `${user}.username.startsWith(${text(hostUserPrefix)}) ? ${user}.username.substring(${hostUserPrefix.length}) : ''`
const hostOfToken = `has(${user}.extra) && ${text(nodeKey)} in ${user}.extra ? ${user}.extra[${text(nodeKey)}][0] : ''`
const host = `${user}.username == ${text(account)} ? (${hostOfToken}) : (${hostOfUser})`

const placeOf = (object: string) =>
  `has(${object}.status) && has(${object}.status.hostName) ? ${object}.status.hostName : ''`
const same = (member: string) => {
  const [before, after] = [`oldObject.${member}`, `object.${member}`]
  return `(has(${before}) ? has(${after}) && ${before} == ${after} : !has(${after}))`
}

/** What people write of a machine; its finalizers are the agent's. */
const kept = ['spec', ...['labels', 'annotations', 'ownerReferences'].map((one) => `metadata.${one}`)]

/** A rule on writes of one kind. The words are CEL that makes a text. */
const rule = (resource: string, holds: string, words: string) => ({
  expression: `request.resource.resource != ${text(resource)} || ${holds}`,
  messageExpression: words,
})
const onUpdate = (holds: string, words: string) =>
  rule('virtualmachines', `request.operation != 'UPDATE' || ${holds}`, words)

const agentOf = "'the agent of ' + variables.host + ' "
const validations = [
  {
    expression: "variables.host != ''",
    messageExpression: text(
      `an agent is known by the node that its token is bound to, or by its name, ${hostUserPrefix}HOST`,
    ),
  },
  rule('hosts', 'variables.name == variables.host', `${agentOf}writes no other Host'`),
  rule(
    'leases',
    `variables.name == ${text(hostLeaseName(''))} + variables.host`,
    `${agentOf}holds no other lease'`,
  ),
  rule('virtualmachines', "request.operation == 'UPDATE'", `${agentOf}makes and deletes no machines'`),
  onUpdate(
    "variables.before in ['', variables.host]",
    "'it is on the host ' + variables.before + ', not on ' + variables.host",
  ),
  onUpdate("variables.after in ['', variables.host]", `${agentOf}gives it to no other host'`),
  onUpdate(
    `(has(request.subResource) && request.subResource == 'status') || (${kept.map(same).join(' && ')})`,
    `${agentOf}changes nothing of it but finalizers and status'`,
  ),
]

const writesOf = (apiGroup: string, resource: string) => ({
  ...{ apiGroups: [apiGroup], apiVersions: ['*'], operations: ['CREATE', 'UPDATE', 'DELETE'] },
  ...{ resources: [resource], scope: '*' },
})

const policy = {
  ...{ apiVersion, kind: 'ValidatingAdmissionPolicy', metadata: { name } },
  spec: {
    failurePolicy: 'Fail',
    matchConstraints: {
      resourceRules: [writesOf(group, '*/*'), writesOf('coordination.k8s.io', 'leases')],
    },
    matchConditions: [{ name: 'agents', expression: isAgent }],
    variables: [
      { name: 'host', expression: host },
      { name: 'name', expression: 'object == null ? oldObject.metadata.name : object.metadata.name' },
      { name: 'before', expression: placeOf('oldObject') },
      { name: 'after', expression: placeOf('object') },
    ],
    validations: validations.map((one) => ({ ...one, reason: 'Forbidden' })),
  },
}

const binding = {
  ...{ apiVersion, kind: 'ValidatingAdmissionPolicyBinding', metadata: { name } },
  spec: { policyName: name, validationActions: ['Deny'] },
}

/** The policy and what puts it into force, as YAML. */
export function policyYaml(): string {
  return [policy, binding]
    .map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false }))
    .join('---\n')
}
