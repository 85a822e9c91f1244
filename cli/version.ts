/** What the commands say of themselves with `--version`. */
export const VERSION = '0.1.0'
