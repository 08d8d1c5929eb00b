export const runStrategies = ['Always', 'RerunOnFailure', 'Once', 'Manual', 'Halted'] as const
export type RunStrategy = (typeof runStrategies)[number]
