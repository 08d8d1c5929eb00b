import { PlasmaError } from '../lib/errors.ts'

/** No connection could be made, or none in time. Codes: `no-socket`, `refused`, `busy`. */
export class ConnectError extends PlasmaError {}

/** Whoever answered does not greet or negotiate as QMP does. */
export class HandshakeError extends PlasmaError {}

/**
 * What came is not what QMP says. Bytes that are no QMP end the session; `BadAnswer` (the answer of one command has
 * another shape than its schema) concerns that command alone.
 */
export class ProtocolError extends PlasmaError {}

/**
 * The connection ended before the answer. Code `Interrupted`: whether the command was executed is unknown.
 * Code `Closed`: the session was not open any more, nothing was sent.
 */
export class Interrupted extends PlasmaError {}

/** Nothing was sent: too many commands, or too many bytes, wait for a QEMU that does not answer. */
export class Busy extends PlasmaError {}

/** No answer in time: whether the command was or will be executed is unknown. */
export class QmpTimeout extends PlasmaError {}

/** A reader of events fell so far behind that some were lost: look at the state itself, then listen again. */
export class EventOverflow extends PlasmaError {}

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
