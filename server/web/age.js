// How old pictures are, by the server's clock, and when the pilot is warned of it; as in rov-client (`clock_sync`,
// `late`). Pure. All times are in ms.

/** That two clocks may drift apart in a millisecond: 500 ppm each, by which NTP slews them. */
const DRIFT = 1000e-6
/** Browsers round their clock down by up to so much. */
const ROUNDED_MS = 0.1
/** Of RTP's clock. */
const TICKS_PER_MS = 90
/** From which age on pictures are warned of, unless the address says another one. */
export const MAX_AGE_MS = 300
/** Pictures have been old for so long. */
const RAISE_AFTER_MS = 80
/** They have been young again for so long. */
const END_AFTER_MS = 250
/** For so long it has not been known how old they are. */
const UNKNOWN_AFTER_MS = 5000
/** The next picture is overdue after so many intervals of those before. */
const OVERDUE = 3
/** A longer one is an outage, from which nothing follows for the next. */
const LONGEST_INTERVAL_MS = 1000
/** The quickest way counts for so long, and up to as long again: clocks drift apart. */
const ZERO_MS = 120_000

/**
 * The server's clock of captures. Each exchange proves two bounds of its distance from this one: the question was
 * received after it was asked, and the answer came after it was sent. All together prove an interval, which grows by
 * what clocks drift; an exchange that contradicts it proves that a clock has stepped, and counts alone, as does one
 * with another run of the server, which has a clock of its own.
 */
export class ClockSync {
  #low = 0
  #high = 0
  /** When that was known; null: nothing is. */
  #at = null
  #run = null

  /** `asked` and `answered` by this clock, `received` and `sent` by that of this run of the server. */
  add({ asked, answered, received, sent, run }) {
    const low = sent - answered - ROUNDED_MS, high = received + 0.001 - asked
    if (low > high || sent < received) return
    const isKnown = this.#at !== null && this.#run === run
    const drift = isKnown ? Math.abs(answered - this.#at) * DRIFT : Infinity
    const joint = [Math.max(this.#low - drift, low), Math.min(this.#high + drift, high)]
    const [from, to] = joint[0] <= joint[1] ? joint : [low, high]
    this.#low = from
    this.#high = to
    this.#at = answered
    this.#run = run
  }

  /** Nothing is known. */
  get isUnknown() {
    return this.#at === null
  }

  forget() {
    this.#at = null
  }

  /**
   * What may have been captured by `now`, at the latest, and the run whose clock says so; null where nothing is known.
   */
  latest(now) {
    if (this.isUnknown) return null
    return { captured: now + this.#high + Math.abs(now - this.#at) * DRIFT, run: this.#run }
  }

  /**
   * How old something is that was captured then by the server's clock, and by how much that may be wrong; null: not
   * known, as what was captured later than now for certain proves that what is known of the clock holds no more.
   */
  age(captured, now) {
    if (this.isUnknown) return null
    const bound = (this.#high - this.#low) / 2 + Math.abs(now - this.#at) * DRIFT
    const age = now + (this.#low + this.#high) / 2 - captured
    return age < -bound ? null : { age: Math.max(0, age), bound }
  }
}

/**
 * When the clock of something that comes late was at zero: the earliest of what it said in this period and in the one
 * before, as rov-client's `told` has it. `seen`: by the newest, which came `now`; `run` of the clock.
 */
export function zeroWith(known, run, seen, now) {
  const age = now - known?.since
  if (known?.run !== run || age >= 2 * ZERO_MS) return { run, since: now, newest: seen, before: seen }
  if (age >= ZERO_MS) return { run, since: now, newest: seen, before: known.newest }
  return { ...known, newest: Math.min(known.newest, seen) }
}

export const earliest = ({ newest, before }) => Math.min(newest, before)

/** From one RTP timestamp to another, which may have wrapped. */
export const millis = (to, from) => ((to - from) | 0) / TICKS_PER_MS

/** When the picture of this RTP timestamp was captured, by the server's clock, where it says that of another one. */
export function capturedAt(rtpTimestamp, { rtp_timestamp: known, captured_us: captured }) {
  return captured / 1000 + millis(rtpTimestamp, known)
}

/** How old all pictures were. What is older than the last place counts there. */
export class Ages {
  #counts = new Uint32Array(10001)
  #all = 0

  add(ms) {
    this.#counts[Math.min(Math.round(ms), this.#counts.length - 1)] += 1
    this.#all += 1
  }

  /** `share` of them were no older than this, in ms; null where none is known. */
  quantile(share) {
    if (!this.#all) return null
    let seen = 0
    return this.#counts.findIndex(count => (seen += count) >= this.#all * share)
  }
}

/** Whether pictures that move are old: for certain, and not one alone. */
export class LateAlarm {
  #limit
  /** Since when no picture has been young, and since when none has been old; or null. */
  #lateSince = null
  #youngSince = null
  #newest = null
  /** It was known how old one is. */
  #wasKnown = false
  /** Since when it is not known whether they are old; or null. */
  #unsureSince = null
  #raised = false
  #blind = false
  /** Only as the picture stood: that ends with the next one, unless it is old as well. */
  #stands = false
  /** The picture on the screen, where its age is known; and the longest interval of late, which fades. */
  #shown = null
  #interval = null

  /** 0: never. */
  constructor(limit) {
    this.#limit = limit
  }

  /** A picture was shown at `now`; `age` as `ClockSync` tells it. */
  shown(age, now) {
    const isOld = this.#limit > 0 && age && age.age - age.bound > this.#limit
    if (this.#stands && !isOld) {
      this.#raised = false
      this.#lateSince = null
    }
    this.#stands = false
    this.#wasKnown ||= Boolean(age)
    const interval = age && this.#shown ? now - this.#shown.at : Infinity
    if (interval < LONGEST_INTERVAL_MS) this.#interval = Math.max(interval, (this.#interval ?? 0) * 7 / 8)
    this.#shown = age ? { ...age, at: now } : null
    if (isOld) {
      // What was marked stays marked.
      this.#lateSince ??= this.#blind ? now - RAISE_AFTER_MS : now
      this.#youngSince = this.#unsureSince = null
      this.#blind = false
      this.#newest = { age: age.age, at: now }
    } else if (age && age.bound <= this.#limit) {
      this.#lateSince = this.#unsureSince = null
      this.#blind = false
      this.#youngSince ??= now
    } else this.#unsure(now)
  }

  /** Whether it is old is not known: that ends nothing for some seconds, and is warned of then. */
  #unsure(now) {
    if (!this.#raised) this.#lateSince = null
    this.#unsureSince ??= now
    if (now - this.#unsureSince < UNKNOWN_AFTER_MS) return
    this.#lateSince = null
    this.#raised = false
    this.#blind = this.#limit > 0 && this.#wasKnown
  }

  /** That is warned of which is not known, where nothing else is. */
  get isBlind() {
    return this.#blind && !this.#raised
  }

  /** How old the pictures are now, while that is warned of; else null. */
  age(now) {
    if (this.#isOverdue(now)) {
      this.#newest = this.#shown
      this.#youngSince = null
      this.#lateSince ??= now
      this.#stands ||= !this.#raised
      this.#raised = true
    }
    if (this.#lateSince !== null && now - this.#lateSince >= RAISE_AFTER_MS) this.#raised = true
    if (this.#youngSince !== null && now - this.#youngSince >= END_AFTER_MS) this.#raised = false
    if (!this.#raised) return null
    // It is not on the screen any more where one came whose age is not known.
    const since = now - this.#newest.at, stands = this.#shown?.at === this.#newest.at
    return this.#newest.age + (stands ? since : Math.min(since, RAISE_AFTER_MS))
  }

  /** The picture that stands has become too old, and the next one should have come. */
  #isOverdue(now) {
    if (!this.#shown || this.#interval === null || !(this.#limit > 0)) return false
    const { age, bound, at } = this.#shown
    return now - at > this.#interval * OVERDUE && age - bound + now - at > this.#limit
  }
}
