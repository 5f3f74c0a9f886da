// How old pictures are, by the server's clock, and when the pilot is warned of it; as in rov-client (`clock_sync`, `late`).
// Pure. All times are in ms.

/** That two clocks may drift apart in a millisecond: 100 ppm each. */
const DRIFT = 200e-6
/** Of RTP's clock. */
const TICKS_PER_MS = 90
/** From which age on pictures are warned of, unless the address says another one. */
export const MAX_AGE_MS = 300
/** Pictures have been old for so long. */
const RAISE_AFTER_MS = 80
/** They have been young again for so long, or their age has not been known. */
const END_AFTER_MS = 250
const UNKNOWN_AFTER_MS = 3000

/**
 * The server's clock of captures. Each exchange proves two bounds of its distance from this one: the question was
 * received after it was asked, and the answer came after it was sent. All together prove an interval, which grows by
 * what clocks drift; an exchange that contradicts it proves that a clock has stepped, and counts alone.
 */
export class ClockSync {
  #low = 0
  #high = 0
  /** When that was known; null: nothing is. */
  #at = null

  /** `asked` and `answered` by this clock, `received` and `sent` by the server's. */
  add({ asked, answered, received, sent }) {
    const low = sent - answered, high = received + 0.001 - asked
    if (low > high || sent < received) return
    const drift = this.#at === null ? Infinity : Math.abs(answered - this.#at) * DRIFT
    const joint = [Math.max(this.#low - drift, low), Math.min(this.#high + drift, high)]
    const [from, to] = joint[0] <= joint[1] ? joint : [low, high]
    this.#low = from
    this.#high = to
    this.#at = answered
  }

  /** How old something is that was captured then by the server's clock, and by how much that may be wrong; null: not known. */
  age(captured, now) {
    if (this.#at === null) return null
    const drift = Math.abs(now - this.#at) * DRIFT
    const age = now + (this.#low + this.#high) / 2 - captured, bound = (this.#high - this.#low) / 2 + drift
    // What is captured later than now for certain shows that a clock has stepped since.
    return age < -bound ? null : { age: Math.max(0, age), bound }
  }
}

/** When the picture of this RTP timestamp was captured, by the server's clock, where it says that of another one. */
export function capturedAt(rtpTimestamp, { rtp_timestamp: known, captured_us: captured }) {
  return captured / 1000 + ((rtpTimestamp - known) | 0) / TICKS_PER_MS
}

/** Whether pictures that move are old: for certain, and not one alone. */
export class LateAlarm {
  #limit
  /** Since when no picture has been young, and since when none has been old; or null. */
  #lateSince = null
  #youngSince = null
  #unknownSince = null
  #newest = null
  #raised = false

  /** 0: never. */
  constructor(limit) {
    this.#limit = limit
  }

  /** A picture was shown at `now`; `age` as `ClockSync` tells it. */
  shown(age, now) {
    if (!age) {
      this.#unknownSince ??= now
      this.#lateSince = this.#youngSince = null
      return
    }
    this.#unknownSince = null
    if (this.#limit > 0 && age.age - age.bound > this.#limit) {
      this.#lateSince ??= now
      this.#youngSince = null
      this.#newest = { age: age.age, at: now }
    } else {
      this.#lateSince = null
      this.#youngSince ??= now
    }
  }

  /** How old the pictures are now, while that is warned of; else null. */
  age(now) {
    if (this.#lateSince !== null && now - this.#lateSince >= RAISE_AFTER_MS) this.#raised = true
    if (this.#youngSince !== null && now - this.#youngSince >= END_AFTER_MS) this.#raised = false
    if (this.#unknownSince !== null && now - this.#unknownSince >= UNKNOWN_AFTER_MS) this.#raised = false
    return this.#raised ? this.#newest.age + Math.min(now - this.#newest.at, RAISE_AFTER_MS) : null
  }
}
