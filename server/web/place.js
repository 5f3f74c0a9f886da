// Which server answers where the page came from: the one of the first session, or another one. As rov-client's
// `find/place`.

const called = name => name || "a server without a name"

/** It proves that it is another one, or that it has lost the key of before. */
const hasOtherKey = before => `Another server answers here, or ${called(before)} with a new key`

/** What the pilot has to know of whose pictures these are, as the statistics say. Of several streams by name. */
export function notices(streams) {
  const one = ({ name, notice }) => streams.length > 1 ? `${name}: ${notice}` : notice
  return streams.filter(({ notice }) => notice).map(one)
}

export class Place {
  /**
   * `{ id, key, ofRun, name }`; `id` is null as long as it has not said it, `key` where it proves nothing. `ofRun`: it
   * said that it has this key for its run alone, so by another one it may well be the same.
   */
  #known = null

  /** A session is with a server of this key. Gives the news where that is another one than before, else null. */
  proven(key) {
    const before = this.#known
    // One that says no key, of another make, may have one for each session.
    if (!key || !before?.key || before.key === key) return null
    if (before.ofRun) {
      // Its statistics say whether it is another one.
      this.#known = { ...before, key }
      return null
    }
    this.#known = { id: null, key, ofRun: false, name: "" }
    return hasOtherKey(before.name)
  }

  /**
   * The statistics that came from here, while a session is with a server of `key`, or none. Gives `{ aside }` where
   * they are of another one than that, `{ other }` where that is another one than before: what the pilot has to know.
   */
  told(key, { id, key: said = null, key_is_of_this_run: ofRun = false, name }) {
    if (!id || this.isLeft(key)) return {}
    if (key && said && key !== said)
      return { aside: `Two servers have this address: ${called(name)} answers here, too` }
    const before = this.#known
    this.#known = { id, key: said, ofRun, name }
    if (!before?.id) return {}
    if (before.id === id) {
      const isOther = !before.ofRun && before.key && said && before.key !== said
      return isOther ? { other: hasOtherKey(before.name) } : {}
    }
    const isNamesake = before.name === name
    const who = isNamesake ? "Another server" : called(name)
    const same = isNamesake ? ", of the same name" : ""
    return { other: `${who} answers here, not ${called(before.name)} as before${same}` }
  }

  /** Another server than that of this key is watched by now: two vehicles shall never be on one screen. */
  isLeft(key) {
    return Boolean(key && this.#known?.key && this.#known.key !== key)
  }
}
