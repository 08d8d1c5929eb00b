/**
 * Prints `N passed, N failed` of a vitest JSON report and exits 1 unless everything passed:
 * test-summary.ts REPORT VITEST-STATUS FAILED-CHECKS
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

const [file = '', status = '1', failedChecks = '0'] = process.argv.slice(2)
const report = readReport(file)
const inTests = report === undefined ? 0 : report.numFailedTests + failedFiles(report)
// Vitest may fail for what belongs to no test, such as an unhandled rejection.
const failed = Number(failedChecks) + (status !== '0' && inTests === 0 ? 1 : inTests)
const passed = report?.numPassedTests ?? 0
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
