import { PlasmaError } from '../lib/errors.ts'

/** No connection could be made, or none in time. */
export class ConnectError extends PlasmaError {}

/** Whoever answered does not greet or negotiate as QMP does. */
export class HandshakeError extends PlasmaError {}

/** The bytes are no QMP; the session can't go on. */
export class ProtocolError extends PlasmaError {}

/** The connection ended before the answer: whether the command was executed is unknown. */
export class Interrupted extends PlasmaError {}

/** No answer in time: whether the command was or will be executed is unknown. */
export class QmpTimeout extends PlasmaError {}

/** QEMU refused the command; `class` is QAPI's ErrorClass. */
export class CommandError extends PlasmaError {
  readonly class: string
  readonly command: string

  constructor(command: string, errorClass: string, description: string) {
    super('CommandError', `QEMU refused ${command}: ${description}`)
    this.class = errorClass
    this.command = command
  }
}
