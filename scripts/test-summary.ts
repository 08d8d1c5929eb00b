/**
 * Prints `N passed, N failed` of runs of vitest and exits 1 unless everything passed:
 * test-summary.ts FAILED-CHECKS [REPORT VITEST-STATUS] ..., a report being of vitest's JSON reporter.
 */
import { readFileSync } from 'node:fs'

interface Report {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly testResults: readonly {
    readonly status: string
    readonly assertionResults: readonly { readonly status: string }[]
  }[]
}

/** A run that ended before it could report has no numbers: the failure is the run itself. */
function readReport(file: string): Report | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Report
  } catch {
    return undefined
  }
}

/** Files that failed without a test of theirs failing: they did not load, or a hook failed. */
function failedFiles(report: Report): number {
  const isFailed = (one: { readonly status: string }) => one.status === 'failed'
  return report.testResults.filter((file) => isFailed(file) && !file.assertionResults.some(isFailed)).length
}

const [failedChecks = '0', ...runs] = process.argv.slice(2)
let passed = 0
let failed = Number(failedChecks)
for (let i = 0; i < runs.length; i += 2) {
  const [file = '', status = '1'] = runs.slice(i, i + 2)
  const report = readReport(file)
  const inTests = report === undefined ? 0 : report.numFailedTests + failedFiles(report)
  const ran = report?.numPassedTests ?? 0
  // Vitest may fail for what belongs to no test, such as an unhandled rejection; and a run without a test is none.
  const isBad = status !== '0' || ran === 0
  failed += isBad && inTests === 0 ? 1 : inTests
  passed += ran
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
