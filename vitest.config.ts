import { defineConfig } from 'vitest/config'

const integration = ['test/integration/**/*.test.ts', 'test/fakes/**/*.test.ts']

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/e2e/**', ...integration],
          // Modules are loaded once a worker, not once a file: a minute of processor time.
          isolate: false,
          // Worlds by the thousand die young: a sixth of the processor time of random schedules was their collection.
          execArgv: ['--min-semi-space-size=64', '--max-semi-space-size=64'],
        },
      },
      // The real agent over the fake QEMU, which is held to the real one.
      {
        extends: true,
        test: {
          name: 'integration',
          include: integration,
          globalSetup: 'test/fakes/setup.ts',
          testTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          exclude: ['test/e2e/cluster/**'],
          // Last of what scripts/test.sh runs beside the clusters: it takes the processors more than other tests do.
          sequence: { groupOrder: 1 },
          testTimeout: 120_000,
        },
      },
      {
        extends: true,
        // Three hosts, their etcd and their guests on one machine, held to deadlines of seconds: one after another.
        // They wait most of the time: scripts/test.sh runs them beside the other projects.
        test: {
          name: 'cluster',
          include: ['test/e2e/cluster/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          testTimeout: 120_000,
        },
      },
    ],
  },
})
