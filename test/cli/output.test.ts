/** `--out` by what is there already: files whole, pipes and devices through, anything else untouched. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import fs, {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { readPrivate } from '../../cli/input.ts'
import { writeNew, writeOut } from '../../cli/output.ts'

let folder: string
const at = (name: string) => join(folder, name)
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-out-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

describe('a file', () => {
  test('that is not there is made, and nothing is left beside it', () => {
    writeOut(at('a.pem'), 'new')
    expect(readFileSync(at('a.pem'), 'utf8')).toBe('new')
    expect(readdirSync(folder)).toEqual(['a.pem'])
  })

  test('that is there is replaced by another, with the mode it had', () => {
    writeFileSync(at('a.pem'), 'old')
    chmodSync(at('a.pem'), 0o640)
    const before = statSync(at('a.pem')).ino
    writeOut(at('a.pem'), 'new')
    const { ino, mode } = statSync(at('a.pem'))
    expect([readFileSync(at('a.pem'), 'utf8'), mode & 0o777]).toEqual(['new', 0o640])
    expect(ino).not.toBe(before)
  })

  test('in a folder that is not there: said, and nothing is made', () => {
    expect(() => writeOut(at('none/a.pem'), 'new')).toThrow(/cannot be written/)
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('a new secret', () => {
  test('is made for its owner alone, and nothing is left beside it', () => {
    writeNew(at('key'), 'mine')
    expect([readFileSync(at('key'), 'utf8'), statSync(at('key')).mode & 0o777]).toEqual([
      'mine',
      0o600,
    ])
    expect(readdirSync(folder)).toEqual(['key'])
  })

  test('replaces none that another run made at the same time', () => {
    writeNew(at('key'), 'first')
    expect(() => writeNew(at('key'), 'second')).toThrow(
      expect.objectContaining({ code: 'file.exists', exit: 'usage' }) as Error,
    )
    expect(readFileSync(at('key'), 'utf8')).toBe('first')
    expect(readdirSync(folder)).toEqual(['key'])
  })

  test('in a folder that is not there: said, and nothing is made', () => {
    expect(() => writeNew(at('none/key'), 'new')).toThrow(
      expect.objectContaining({ code: 'file.unwritable' }) as Error,
    )
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('after a power cut it is still there', () => {
  const { fsyncSync } = fs
  /** What the disk says when it is asked to keep a folder; what was asked before is in `kept`. */
  function asking(answer: () => void): { readonly kept: string[] } {
    const kept: string[] = []
    fs.fsyncSync = (fd) => {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      if (statSync(path).isDirectory()) {
        kept.push(`${path}: ${readdirSync(path).join()}`)
        answer()
      }
      fsyncSync(fd)
    }
    syncBuiltinESMExports()
    return { kept }
  }
  const failing = (code: string) => () => {
    throw Object.assign(new Error(`${code}: fsync`), { code })
  }
  afterEach(() => {
    fs.fsyncSync = fsyncSync
    syncBuiltinESMExports()
  })
  const rows = [
    ['a file', writeOut],
    ['a new secret', writeNew],
  ] as const

  test.for(rows)(
    '%s: its folder is kept with its name in it, and with nothing beside',
    ([, put]) => {
      const { kept } = asking(() => undefined)
      put(at('a.pem'), 'new')
      expect(kept).toEqual([`${folder}: a.pem`])
    },
  )

  test.for(rows)('%s, and the disk does not say so: told, and the file stays', ([, put]) => {
    asking(failing('EIO'))
    expect(() => put(at('a.pem'), 'new')).toThrow(
      expect.objectContaining({
        code: 'file.unsettled',
        exit: 'failed',
        why: 'EIO: fsync',
      }) as Error,
    )
    expect([readFileSync(at('a.pem'), 'utf8'), readdirSync(folder)]).toEqual(['new', ['a.pem']])
  })

  test.for(rows)('%s, on a file system that keeps no folders: nothing is said', ([, put]) => {
    asking(failing('EINVAL'))
    put(at('a.pem'), 'new')
    expect(readFileSync(at('a.pem'), 'utf8')).toBe('new')
  })
})

describe('left alone', () => {
  const untouched = (path: string) => {
    let code = ''
    try {
      writeOut(path, 'new')
    } catch (error) {
      code = (error as { code: string }).code
    }
    expect(code).toBe('file.kind')
  }

  test('a link, and the file behind it', () => {
    writeFileSync(at('mine'), 'mine')
    symlinkSync(at('mine'), at('link'))
    untouched(at('link'))
    expect([readFileSync(at('mine'), 'utf8'), readlinkSync(at('link'))]).toEqual([
      'mine',
      at('mine'),
    ])
  })

  test('a link to nowhere', () => {
    symlinkSync(at('none'), at('link'))
    untouched(at('link'))
    expect(existsSync(at('none'))).toBe(false)
  })

  test('a folder', () => {
    mkdirSync(at('folder'))
    untouched(at('folder'))
  })

  test('a socket', async () => {
    const server = createServer().listen(at('socket'))
    await once(server, 'listening')
    untouched(at('socket'))
    expect(statSync(at('socket')).isSocket()).toBe(true)
    server.close()
  })
})

describe('written through', () => {
  test('a pipe: its reader has the text, and it stays a pipe', () => {
    execFileSync('mkfifo', [at('pipe')])
    // Open before it is written to, which would wait in this thread for a reader that does not come.
    const reader = openSync(at('pipe'), constants.O_RDONLY | constants.O_NONBLOCK)
    writeOut(at('pipe'), 'new')
    const read = readFileSync(reader, 'utf8')
    closeSync(reader)
    expect([read, statSync(at('pipe')).isFIFO()]).toEqual(['new', true])
  })

  test('/dev/null stays what it is', () => {
    writeOut('/dev/null', 'new')
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true)
  })

  test.for([
    ['/dev/stdout', 'stdout'],
    ['/dev/fd/2', 'stderr'],
  ] as const)('%s is what the process has open, whatever that is', ([path, name]) => {
    const write = vi.spyOn(process[name], 'write').mockImplementation(() => true)
    writeOut(path, 'new')
    expect(write.mock.calls).toEqual([['new']])
    write.mockRestore()
  })
})

describe('a private key that is there already', () => {
  test.for([0o644, 0o640, 0o604, 0o660])('open to others: refused', (mode) => {
    writeFileSync(at('key'), 'secret')
    chmodSync(at('key'), mode)
    expect(() => readPrivate(at('key'), 'key')).toThrow(
      expect.objectContaining({
        code: 'key.exposed',
        exit: 'usage',
        next: expect.stringContaining(`chmod 600 ${at('key')}`) as string,
      }) as Error,
    )
  })

  test.for([0o600, 0o400])('for its owner alone: read', (mode) => {
    writeFileSync(at('key'), 'secret')
    chmodSync(at('key'), mode)
    expect(readPrivate(at('key'), 'key')).toBe('secret')
  })

  test('of another account: its mode is that account’s business, as with ssh', () => {
    writeFileSync(at('key'), 'secret')
    chmodSync(at('key'), 0o644)
    const uid = vi.spyOn(process, 'getuid').mockReturnValue(statSync(at('key')).uid + 1)
    expect(readPrivate(at('key'), 'key')).toBe('secret')
    uid.mockRestore()
  })
})
