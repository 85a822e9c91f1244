/** What a contract of the gateway's stores asks of whoever keeps it. */
/** Gives an empty store; what it holds goes with the test. */
export type Make<S> = () => Promise<S>

export const NOW = 1_780_000_000
