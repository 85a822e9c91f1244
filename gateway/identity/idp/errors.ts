/** Every way in which signing in through a company's provider ends without a login, and its words for a person. */

export type IdpCode =
  | 'idp.unknown'
  | 'idp.state'
  | 'idp.mixup'
  | 'idp.refused'
  | 'idp.unreachable'
  | 'idp.exchange'
  | 'idp.token'
  | 'idp.claims'
  | 'idp.unverified'
  | 'idp.domain'
  | 'idp.address'
  | 'idp.disabled'

interface Row {
  readonly status: 400 | 403 | 404 | 409 | 502 | 503
  readonly title: string
  readonly message: string
  readonly nextStep: string
}

const AGAIN = 'Go back to the program you came from and start again.'
const OWN = 'Tell whoever runs the sign-in of your company, and give them the id below.'
const PLANT = 'Ask your contact at the plant, and give them the id below.'

/** What the page says. Nothing here tells whether an account or another company exists. */
export const idpRows = {
  'idp.unknown': {
    status: 404,
    title: 'This company does not sign in here',
    message: 'The sign-in of this company is not, or no longer, set up at this gateway.',
    nextStep: PLANT,
  },
  'idp.state': {
    status: 403,
    title: 'This sign-in was not started here',
    message:
      'The answer belongs to no sign-in that is waiting in this browser: it took longer than ten minutes, was used before, or began elsewhere.',
    nextStep: `${AGAIN} If somebody sent you this link, tell them that it does not work, and why.`,
  },
  'idp.mixup': {
    status: 403,
    title: 'The answer came from another provider',
    message: 'Another provider answered than the one that was asked. Nothing was sent to it.',
    nextStep: PLANT,
  },
  'idp.refused': {
    status: 403,
    title: 'Your company did not sign you in',
    message: 'The sign-in of your company answered no.',
    nextStep: `${AGAIN} If it stays: ${OWN}`,
  },
  'idp.unreachable': {
    status: 503,
    title: 'Your company’s sign-in does not answer',
    message:
      'The gateway cannot reach the sign-in of your company. Who is signed in stays so; new sign-ins must wait.',
    nextStep: 'Try again in a few minutes. If it stays, tell whoever runs it.',
  },
  'idp.exchange': {
    status: 502,
    title: 'Your company’s sign-in did not accept the gateway',
    message: 'It refused to hand over who you are.',
    nextStep: PLANT,
  },
  'idp.token': {
    status: 502,
    title: 'The answer of your company is not good',
    message: 'What it says about you is not signed, or not for this gateway, or not of now.',
    nextStep: `${AGAIN} If it stays: ${OWN}`,
  },
  'idp.claims': {
    status: 403,
    title: 'Something is missing in the answer of your company',
    message: 'It does not say who you are in the way this gateway needs: a name and an address.',
    nextStep: OWN,
  },
  'idp.unverified': {
    status: 403,
    title: 'Your address is not verified',
    message: 'Your company does not say that the address is yours.',
    nextStep: OWN,
  },
  'idp.domain': {
    status: 403,
    title: 'This address is not one of your company’s',
    message: 'Your company’s sign-in named an address that it may not vouch for here.',
    nextStep: PLANT,
  },
  'idp.address': {
    status: 409,
    title: 'This address cannot be used here',
    message: 'The gateway cannot take the address for this sign-in.',
    nextStep: PLANT,
  },
  'idp.disabled': {
    status: 403,
    title: 'You may not sign in here',
    message: 'The plant does not let you sign in at this time.',
    nextStep: PLANT,
  },
} as const satisfies Record<IdpCode, Row>

/** Ends a sign-in; `cause` goes to the node's own log, never to the page. */
export class IdpError extends Error {
  override readonly name = 'IdpError'
  readonly code: IdpCode
  /** More for the log: which check, which error of theirs. No token, no personal data. */
  readonly detail: string | null
  constructor(code: IdpCode, detail: string | null = null, options?: ErrorOptions) {
    super(detail === null ? code : `${code}: ${detail}`, options)
    this.code = code
    this.detail = detail
  }
}
