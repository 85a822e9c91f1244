/**
 * What a browser runs on the pages that ask for a passkey: it hands the question to the authenticator and the answer
 * back. Text goes in as text; no markup is made here.
 */
'use strict'

const at = (id) => document.getElementById(id)

/** A sentence for the person, and the code that finds it. */
function fail(message, code) {
  at('message').textContent = message
  at('code').textContent = code
  at('problem').hidden = false
}

/** What the browser says when no passkey answered, for a person. */
function explain(error) {
  if (error.name === 'NotAllowedError')
    return 'No passkey answered: it was cancelled, it took too long, or none of yours is here.'
  if (error.name === 'InvalidStateError') return 'This authenticator is registered already.'
  if (error.name === 'SecurityError') return 'This page is not at the address the passkey is for.'
  if (error.name === UNREACHED)
    return 'The gateway could not be reached. Try again; where the button is gone, ask for a new link.'
  return `The browser could not use a passkey: ${error.message}`
}

/** The authenticator's answer to `options`, as JSON. */
async function answer(kind, options) {
  if (typeof globalThis.PublicKeyCredential?.parseRequestOptionsFromJSON !== 'function')
    throw new Error('it is too old to know passkeys; update it')
  const credential =
    kind === 'register'
      ? await navigator.credentials.create({
          publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
        })
      : await navigator.credentials.get({
          publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
        })
  return credential.toJSON()
}

/** What a network that gave nothing back is called here. */
const UNREACHED = 'UnreachedError'

/** One call of the API; throws the problem it answers with, or `UNREACHED` where no answer came. */
async function call(path, body) {
  const response = await fetch(`${at('ceremony').dataset.api}/ceremonies/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    credentials: 'omit',
    body: JSON.stringify(body),
  }).catch((cause) => {
    throw Object.assign(new Error('no answer came', { cause }), { name: UNREACHED })
  })
  const said = await response.json()
  if (response.ok) return said
  const steps = said.next_step === undefined ? '' : ` ${said.next_step}`
  throw Object.assign(new Error(`${said.detail}${steps}`), { problem: said })
}

/** So often, and after so long, a question that did not come is asked for again: a network that changes is back by then. */
const AGAIN = 5
const AGAIN_MS = 1000

/** The question of this page. It is only read: asked for again it is the same. */
async function question(secret) {
  for (let left = AGAIN; ; left--) {
    try {
      return await call('show', { secret })
    } catch (error) {
      if (error.name !== UNREACHED || left === 0) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
  }
}

function failed(error) {
  const { problem } = error
  if (problem === undefined) return fail(explain(error), error.name)
  fail(error.message, `${problem.code} · ${problem.decision_id ?? problem.request_id}`)
}

function showFacts(facts) {
  for (const [label, text] of facts) {
    const [term, value] = [document.createElement('dt'), document.createElement('dd')]
    term.textContent = label
    value.textContent = text
    at('facts').append(term, value)
  }
}

/** The page of a link: what is asked, the answer, what came of it. */
async function ceremony() {
  const secret = location.hash.slice(1)
  // The secret is this page's alone: not the history's.
  history.replaceState(null, '', location.pathname)
  const asked = await question(secret)
  document.querySelector('h1').textContent = asked.title
  at('email').textContent = asked.email
  showFacts(asked.facts)
  at('go').textContent = asked.title
  at('ceremony').hidden = false
  at('go').addEventListener('click', () => void give(asked, secret))
}

/** Asks the authenticator and brings its answer. */
async function give(asked, secret) {
  at('go').disabled = true
  at('problem').hidden = true
  try {
    const credential = await answer(asked.kind, asked.options)
    const done = await call('answer', { secret, credential })
    at('ceremony').hidden = true
    at('done').textContent = done.message
    at('done').hidden = false
    if (done.assertion === null) return
    at('signature').textContent = JSON.stringify(done.assertion, undefined, 2)
    at('signature').hidden = false
  } catch (error) {
    failed(error)
    // An answer that was sent used the question up; one that never came did not.
    at('go').disabled = error.problem !== undefined
  }
}

/**
 * A form that goes when the authenticator has answered. Its button comes disabled: pressed before this script ran, it
 * would send the form without an answer, and the person had to sign in again.
 */
function secondFactor(form) {
  const button = at('go')
  form.addEventListener('submit', async (event) => {
    if (event.submitter !== button || at('credential').value !== '') return
    event.preventDefault()
    // One question at a time; a browser refuses the second.
    button.disabled = true
    try {
      const credential = await answer(form.dataset.kind, JSON.parse(form.dataset.options))
      at('credential').value = JSON.stringify(credential)
      // A button that is disabled sends no value.
      button.disabled = false
      form.requestSubmit(button)
    } catch (error) {
      failed(error)
      button.disabled = false
    }
  })
  button.disabled = false
  if (button.autofocus) button.focus()
}

/** The page of an invitation's link: what stands behind the hash is sent, and stays in no history. */
function openInvitation(form) {
  const secret = location.hash.slice(1)
  if (secret === '') return
  history.replaceState(null, '', location.pathname)
  at('secret').value = secret
  form.requestSubmit(form.querySelector('button'))
}

if (at('second') !== null) secondFactor(at('second'))
else if (at('invitation') !== null) openInvitation(at('invitation'))
else if (at('ceremony') !== null) ceremony().catch(failed)
