/** #ot: what a request of an industrial protocol may do. Knows bytes and clock readings, nothing else. */
export { ModbusGate } from './modbus.ts'
export type {
  GateOutcome,
  ModbusOptions,
  ModbusRequest,
  ModbusVerdict,
  Ruling,
  Window,
} from './modbus.ts'
export { isWithin, type Rules } from './verdict.ts'
