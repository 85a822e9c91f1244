/** What this node is, as events, the API and health say it. */
export const VERSION = '0.1.0'
