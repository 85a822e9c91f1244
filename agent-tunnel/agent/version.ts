/** Which agent this is. test/update/versions.test.ts: every place that says so says the same. */

/** Major, minor and patch, as an update of it is compared. */
export const VERSION = '0.1.0'
