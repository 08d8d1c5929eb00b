import { cordoning } from './cordon.ts'

export const command = cordoning(false)
