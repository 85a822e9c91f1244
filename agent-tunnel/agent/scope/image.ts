/**
 * The image a container was made from, by what its runtime wrote down for root to read. The container is
 * named by its control group, at the top where only root makes groups: deeper names are their owner's.
 */
import { readFileSync } from 'node:fs'
import { parseGroup } from './procfs.ts'

const ID = '([0-9a-f]{64})'
/** How Docker and Podman name the group of a container, with the systemd and the cgroupfs driver. */
const DOCKER = new RegExp(`^/(?:(?:[^/]+\\.slice/)*docker-${ID}\\.scope|docker/${ID})(?:/|$)`)
const PODMAN = new RegExp(
  `^/(?:(?:[^/]+\\.slice/)*libpod-${ID}\\.scope|libpod_parent/libpod-${ID})(?:/|$)`,
)
const DIGEST = /^(?:sha256:)?([0-9a-f]{64})$/
const MAX_STATE_BYTES = 4 * 1024 * 1024

/** The container of a process by its /proc/PID/cgroup; undefined where it is in none we know. */
export function containerOf(
  cgroup: string,
): { runtime: 'docker' | 'podman'; id: string } | undefined {
  const path = parseGroup(cgroup) ?? ''
  const docker = DOCKER.exec(path)
  if (docker !== null) return { runtime: 'docker', id: docker[1] ?? docker[2] ?? '' }
  const podman = PODMAN.exec(path)
  if (podman !== null) return { runtime: 'podman', id: podman[1] ?? podman[2] ?? '' }
  return undefined
}

/**
 * `sha256:` and 64 hex digits: the image's id, the digest of its configuration. `root` is where the
 * runtimes keep their state (`/`). Undefined where that may not be read or has another form.
 */
export function imageOf(cgroup: string, root: string): string | undefined {
  const container = containerOf(cgroup)
  if (container === undefined) return undefined
  const digest =
    container.runtime === 'docker'
      ? dockerImage(container.id, root)
      : podmanImage(container.id, root)
  const hex = typeof digest === 'string' ? DIGEST.exec(digest)?.[1] : undefined
  return hex === undefined ? undefined : `sha256:${hex}`
}

function dockerImage(id: string, root: string): unknown {
  const state = read(`${root}var/lib/docker/containers/${id}/config.v2.json`)
  return isRecord(state) && state['ID'] === id ? state['Image'] : undefined
}

function podmanImage(id: string, root: string): unknown {
  const list = read(`${root}var/lib/containers/storage/overlay-containers/containers.json`)
  if (!Array.isArray(list)) return undefined
  const own = list.find((entry: unknown) => isRecord(entry) && entry['id'] === id) as unknown
  return isRecord(own) ? own['image'] : undefined
}

function read(path: string): unknown {
  const text = readFileSync(path, 'utf8')
  return text.length > MAX_STATE_BYTES ? undefined : JSON.parse(text)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
