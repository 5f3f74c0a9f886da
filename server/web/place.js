// Which server answers where the page came from: the one of the first session, or another one. As rov-client's
// `find/place`.

const called = name => name || "a server without a name"

export class Place {
  /** `{ id, key, name }`; `id` is null as long as it has not said it, `key` where it proves nothing. */
  #known = null

  /** A session is with a server of this key. Gives the news where that is another one than before, else null. */
  proven(key) {
    const before = this.#known
    // One that says no key, of another make, may have one for each session.
    if (!key || !before?.key || before.key === key) return null
    this.#known = { id: null, key, name: "" }
    return `Another server answers here, not ${called(before.name)} as before: its key differs`
  }

  /**
   * The statistics that came from here, while a session is with a server of `key`, or none. Gives `{ aside }` where they
   * are of another one than that, `{ other }` where that is another one than before: what the pilot has to know.
   */
  told(key, { id, key: said = null, name }) {
    if (!id || this.isLeft(key)) return {}
    if (key && said && key !== said) return { aside: `Two servers have this address: ${called(name)} answers here, too` }
    const before = this.#known
    this.#known = { id, key: said, name }
    if (!before?.id || (before.id === id && (!before.key || !said || before.key === said))) return {}
    const isNamesake = before.name === name
    const who = isNamesake ? "Another server" : called(name)
    return { other: `${who} answers here, not ${called(before.name)} as before${isNamesake ? ", of the same name" : ""}` }
  }

  /** Another server than that of this key is watched by now: two vehicles shall never be on one screen. */
  isLeft(key) {
    return Boolean(key && this.#known?.key && this.#known.key !== key)
  }
}
