/** The project's own files, as paths relative to its root with `/`: what is tracked or soon will be. */
import { readdirSync } from 'node:fs'

// .gitignore says the same; test/house/tree.test.ts compares.
const OUTPUT = ['.git', 'data', 'dist', 'coverage']
const LEFTOVERS = ['.log', '.tsbuildinfo', '.DS_Store']

/**
 * Every file under `root`, sorted; output folders, installed packages and tool leftovers are left out.
 * @param {string} root
 * @returns {string[]}
 */
export function files(root) {
  /** @type {string[]} */
  const found = []
  /** @param {string} folder */
  const visit = (folder) => {
    for (const entry of readdirSync(`${root}/${folder}`, { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.name === 'node_modules' || OUTPUT.includes(path)) continue
      if (entry.isDirectory()) visit(path)
      else if (entry.isFile() && !LEFTOVERS.some((end) => path.endsWith(end))) found.push(path)
    }
  }
  visit('')
  return found.sort()
}

/**
 * Whether a compiler, linter and formatter must have seen this file.
 * @param {string} path
 */
export function isSource(path) {
  return /\.(ts|mts|mjs)$/.test(path) && !path.startsWith('console/')
}
