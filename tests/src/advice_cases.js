// Cases for server/web/advice.js, mjpeg.js, lineup.js, age.js, place.js, exif.js, clip.js and written.js; gives what
// does not hold.
async function check(
  { advise, view, tabTitle, retryDelay, fileName, duration }, { Parts, watch }, { lineup, tiles, told },
  { ClockSync, LateAlarm, capturedAt, zeroWith, earliest }, { Place, notices }, { placeOf }, { saveClip },
) {
  const wrong = []
  const expect = (what, is, wanted) => { if (is !== wanted) wrong.push(`${what}: ${is}, not ${wanted}`) }
  const fresh = {
    lastPacket: 0, lastPicture: 0, connected: true, foundPath: true, hadPicture: true, paths: [], ended: null,
    probed: null,
  }
  const advice = (now, more) => advise(now, { ...fresh, ...more })
  const running = { kind: "serving", state: "running" }

  expect("pictures come", advice(500).act, "live")
  expect("the first picture is not due yet", advice(500, { hadPicture: false }).act, "starting")
  expect("silence asks the server", advice(1000).probe, true)
  expect("what was said before the silence is of no use",
    advice(1100, { probed: { at: 0, kind: "unknown" } }).act, "wait")
  expect("a forgotten session is left", advice(1100, { probed: { at: 1050, kind: "unknown" } }).act, "leave")
  expect("a server that is gone is left", advice(1100, { probed: { at: 1050, kind: "refused" } }).act, "leave")
  expect("a link that is down is waited for", advice(9000, { probed: { at: 8500, kind: "silent" } }).act, "wait")
  expect("and asked again", advice(9600, { probed: { at: 8500, kind: "silent" } }).probe, true)
  expect("but not at once", advice(9000, { probed: { at: 8500, kind: "silent" } }).probe, false)
  expect("a path that is new may take its time",
    advice(5000, { connected: false, probed: { at: 4500, ...running } }).act, "wait")
  expect("not for ever", advice(8100, { connected: false, probed: { at: 8000, ...running } }).act, "leave")
  expect("what is sent and does not arrive needs a new path",
    advice(3100, { probed: { at: 3000, ...running } }).act, "leave")
  const restarting = advice(60000, { probed: { at: 59500, kind: "serving", state: "restarting", reason: "no camera" } })
  expect("a source that restarts is waited for", restarting.act, "wait")
  expect("with its reason", restarting.reason, "The source is being restarted: no camera")
  expect("a keyframe is waited for", advice(5000, { lastPacket: 4900 }).act, "wait")
  expect("for so long", advice(31000, { lastPacket: 30900 }).act, "leave")
  expect("an ended session is left", advice(10, { ended: "over" }).reason, "over")

  expect("the first retry is at once", retryDelay(0, false), 0)
  expect("retries stay frequent", retryDelay(99, false), 1000)
  expect("a refusal is respected", retryDelay(0, true), 5000)

  // UDP that does not get through: known by the server's answer and its silence, within 10 s.
  const unconnected = { connected: false, foundPath: false, paths: ["10.0.0.2:5010"] }
  const blocked = advice(4600, { ...unconnected, probed: { at: 4500, ...running } })
  expect("no path is found", blocked.blocked, true)
  expect("with the address", blocked.reason.startsWith("No UDP gets through to 10.0.0.2:5010: a firewall"), true)
  expect("and looked for", blocked.act, "wait")
  expect("and looked for anew", advice(8100, { ...unconnected, probed: { at: 8000, ...running } }).act, "leave")
  expect("not known yet", advice(3000, { ...unconnected, probed: { at: 2900, ...running } }).blocked, undefined)
  const isBlocked = more => advice(4600, { ...unconnected, probed: { at: 4500, ...running }, ...more }).blocked
  expect("a server that is gone blocks nothing", isBlocked({ probed: { at: 4500, kind: "refused" } }), undefined)
  expect("nor does a path that was there", isBlocked({ foundPath: true }), undefined)
  expect("ICE that gave up", advice(100, { ...unconnected, ended: "The connection has failed" }).blocked, true)
  const unsecured = advice(100, { ...unconnected, foundPath: true, ended: "DTLS has failed" })
  expect("DTLS that failed blocks nothing", unsecured.blocked, false)
  expect("and is said", unsecured.reason, "DTLS has failed")

  const awake = { lastPicture: 0, awakeSince: 0 }
  expect("a picture of now", view(900, awake).state, "live")
  expect("a picture of then", view(1100, awake).state, "old")
  expect("its age", view(3999, awake).title, "NO VIDEO 3 s")
  expect("a picture by HTTP is marked", view(900, { ...awake, byHttp: true }).state, "backup")
  expect("and can be old", view(1100, { ...awake, byHttp: true }).state, "old")
  expect("it is dimmed", view(1100, awake).dim, true)
  const shown = view(60500, { lastPicture: 0, awakeSince: 60000 })
  expect("a tab that was hidden is not called old at once", shown.state, "waiting")
  expect("but not shown as live either", shown.dim, true)
  expect("and then it is", view(61100, { lastPicture: 0, awakeSince: 60000 }).title, "NO VIDEO 61 s")
  expect("nothing yet", view(500, { lastPicture: null, awakeSince: 0 }).title, "Connecting…")
  const waits = view(1500, { lastPicture: null, awakeSince: 0, connected: true })
  expect("still nothing", waits.title, "Waiting for the first picture…")
  expect("and lost", view(1500, { lastPicture: null, awakeSince: 0, lost: true }).title, "NO VIDEO")
  const tab = (now, more) => tabTitle(now, "rov1", { lastPicture: null, lastDecoded: null, lost: false, ...more })
  expect("a tab that connects", tab(0, {}), "rov1 - connecting")
  expect("a tab that found nothing", tab(0, { lost: true }), "rov1 - NO VIDEO")
  expect("a live tab", tab(900, { lastPicture: 0 }), "rov1 - live")
  expect("a hidden one, where nothing is presented", tab(9000, { lastPicture: 0, lastDecoded: 8900 }), "rov1 - live")
  expect("one to look at", tab(12500, { lastPicture: 0, lastDecoded: 200 }), "rov1 - NO VIDEO 12 s")
  expect("before the name is known", tabTitle(0, undefined, { lastPicture: 0 }), "ROV - live")
  expect("minutes", duration(600000), "10 min")

  // What is no live picture of its camera.
  const moving = view(900, { ...awake, late: 1290 })
  expect("a late picture",
    [moving.state, moving.dim, moving.badge, moving.mark.title].join(), "late,false,OLD,1.2 s OLD")
  const both = view(900, { ...awake, late: 1290, doubt: { frozen: true } })
  expect("of a camera that hangs",
    [both.state, both.badge, both.mark.title, both.mark.detail].join(), "late,NOT LIVE,CAMERA FROZEN,1.2 s OLD")
  const blind = view(900, { ...awake, blind: "Why" })
  expect("an age that is not known",
    [blind.state, blind.badge, blind.mark.title, blind.mark.detail].join(), "blind,age ?,AGE NOT KNOWN,Why")
  expect("of a test picture",
    view(900, { ...awake, blind: "Why", doubt: { substitute: true } }).mark.title, "TEST PICTURE")
  expect("one that is later", view(900, { ...awake, late: 12900 }).mark.title, "12 s OLD")
  const frozen = view(900, { ...awake, doubt: { frozen: true, reason: "the picture stands" } })
  expect("a camera that hangs", [frozen.state, frozen.badge, frozen.mark.title, frozen.mark.detail].join(),
    "live,NOT LIVE,CAMERA FROZEN,The picture stands")
  expect("a test picture",
    view(900, { ...awake, byHttp: true, doubt: { substitute: true } }).mark.title, "TEST PICTURE")
  expect("an old picture has the frame too", view(3999, { ...awake, late: 1290 }).mark.title, "")
  expect("a live one has none", view(900, awake).mark, null)
  expect("a late tab", tab(900, { lastPicture: 0, late: 1290 }), "rov1 - 1.2 s OLD")
  expect("one whose age is not known", tab(900, { lastPicture: 0, blind: "Why" }), "rov1 - AGE NOT KNOWN")
  expect("one that is hidden, and was late",
    tab(9000, { lastPicture: 0, lastDecoded: 8900, late: 1290 }), "rov1 - live")
  expect("a frozen one", tab(900, { lastPicture: 0, doubt: { frozen: true } }), "rov1 - CAMERA FROZEN")

  // The server's clock is an hour ahead and gains 100 ppm; 5 ms there and 35 ms back.
  const sync = new ClockSync(), server = at => 3600000 + at * 1.0001
  expect("nothing is known", sync.age(server(0), 0), null)
  for (let at = 0; at <= 600000; at += 1000)
    sync.add({ asked: at, received: server(at + 5), sent: server(at + 5), answered: at + 40 })
  const { age, bound } = sync.age(server(600800), 600900)
  expect("an age within its bound", Math.abs(age - 100) <= bound && bound < 21.5, true)
  expect("captured later than now", sync.age(server(601100), 601000), null)
  const small = new ClockSync()
  small.add({ asked: 0, received: 1000, sent: 1000, answered: 2, run: 1 })
  small.add({ asked: 1000, received: 2035, sent: 2035, answered: 1040, run: 2 })
  const again = small.age(2015, 1100)
  expect("another run whose clock differs by little",
    Math.abs(again.age - 100) <= again.bound && again.bound > 19, true)
  small.forget()
  expect("what is forgotten", [small.age(2015, 1100), small.isUnknown].join(), ",true")
  sync.add({ asked: 601000, received: 5000, sent: 5000, answered: 601002 })
  expect("a server that was restarted", Math.abs(sync.age(5000, 601101).age - 100) < 1.1, true)
  sync.add({ asked: 602000, received: 7000, sent: 9000, answered: 602002 })
  expect("what cannot be", Math.abs(sync.age(5000, 601101).age - 100) < 1.1, true)
  const anchor = { rtp_timestamp: 0xffffff00, captured_us: 5000000 }
  expect("a timestamp that wrapped", capturedAt((0xffffff00 + 9000) % 2 ** 32, anchor), 5100)
  expect("one before", capturedAt(0xffffff00 - 900, anchor), 4990)
  const alarm = new LateAlarm(300), sees = (at, age) => (alarm.shown({ age, bound: 10 }, at), alarm.age(at))
  expect("young pictures", [0, 33, 66].map(at => sees(at, 50)).join(), ",,")
  expect("a late one alone", [sees(100, 900), sees(133, 50), sees(166, 900)].join(), ",,")
  expect("late ones", sees(260, 900), 900)
  expect("young again", [sees(300, 50), sees(560, 50)].join(), "940,")
  expect("late once more", [sees(580, 900), sees(590, 900), sees(661, 900)].join(), ",,900")
  const unknown = at => (alarm.shown(null, at), alarm.age(at))
  expect("not known for a moment", [unknown(1000), unknown(5600), alarm.isBlind].join(), "980,980,false")
  expect("not known any more", [unknown(6000), unknown(6100), alarm.isBlind].join(), ",,true")
  expect("not certain", [sees(6200, 305), sees(6300, 305), alarm.isBlind].join(), ",,false")
  const vague = (alarm, at) => (alarm.shown({ age: 1000, bound: 1000 }, at), [alarm.age(at), alarm.isBlind].join())
  expect("perhaps old", [vague(alarm, 7000), vague(alarm, 11900), vague(alarm, 12000)].join(), ",false,,false,,true")
  expect("old after that", sees(12033, 900), 900)
  expect("perhaps young", vague(alarm, 12400), "980,false")
  const early = new LateAlarm(300)
  for (let at = 0; at < 60_000; at += 33) early.shown(null, at)
  expect("never known", early.isBlind, false)
  expect("one that is old", (early.shown({ age: 900, bound: 10 }, 60_000), early.age(60_033)), null)
  expect("alone", (early.shown(null, 60_066), early.age(60_200)), null)
  const stands = new LateAlarm(300)
  for (let at = 0; at <= 330; at += 33) stands.shown({ age: 50, bound: 10 }, at)
  expect("one that stands", [stands.age(580), stands.age(600)].join(), ",320")
  const other = new LateAlarm(300)
  for (let at = 0; at <= 330; at += 33) other.shown({ age: 50, bound: 10 }, at)
  other.shown(null, 363)
  expect("one of unknown age stands", other.age(900), null)
  const off = new LateAlarm(0)
  off.shown({ age: 9000, bound: 0 }, 0)
  expect("not wanted", off.age(900), null)

  const time = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 6))
  const of = { vehicle: "rov/1 x", camera: "bow", stream: "bow/stream2" }
  expect("a file's name", fileName(time, of), "2026-01-02_03-04-05.006Z_rov-1-x_bow_stream2")
  expect("of what is not known", fileName(time, { vehicle: "", camera: "", stream: "" }, "not-live"),
    "2026-01-02_03-04-05.006Z_not-live")
  const field = (value, text = "") => ({ value, text })
  const placed = telemetry => JSON.stringify(placeOf(telemetry))
  const fields = { latitude: field(-91), longitude: field(179.5), depth: field(1, "1 m"), heading: field(-90) }
  expect("a place", placed(fields), '{"longitude":179.5,"depth":1,"heading":270}')
  expect("no place", placed({ latitude: field(null), depth: field(1, "1 ft"), heading: field("east") }), "{}")

  const bytes = text => new TextEncoder().encode(text)
  const header = (time, { length }) =>
    `Content-Type: image/jpeg\r\nContent-Length: ${length}\r\nX-Timestamp: ${time}\r\n\r\n`
  const part = (time, body) => `${header(time, body)}${body}\r\n--frame\r\n`
  const stream = "--frame\r\n" + part("1.500000", "a\r\n\r\nb") + part("2.000000", "") + part("3.25", "xyz")
  for (const step of [1, 7, 1000]) {
    const parts = new Parts(), found = []
    for (let at = 0; at < stream.length; at += step) found.push(...parts.push(bytes(stream.slice(at, at + step))))
    const text = found.map(({ time, jpeg }) => `${time} ${new TextDecoder().decode(jpeg)}`).join("|")
    expect(`parts that come by ${step}`, text, "1500 a\r\n\r\nb|2000 |3250 xyz")
  }
  const slow = new Parts(), whole = part("5.0", "xyz")
  slow.push(bytes("--frame\r\n"), 100)
  slow.push(bytes(whole.slice(0, -13)), 5200)
  const [{ begun }] = slow.push(bytes(whole.slice(-13)), 9000)
  expect("when the header of a part came", begun, 5200)
  for (const other of ["x".repeat(5000), "Content-Length: 99999999\r\n\r\n", "Content-Type: text/html\r\n\r\n"]) {
    let refused = false
    try { new Parts().push(bytes(other)) } catch { refused = true }
    expect(`what is no MJPEG: ${other.slice(0, 20)}`, refused, true)
  }

  const camera = (camera, name, width, height) => ({ camera, name, width, height })
  const all = lineup([
    camera("bow", "stream1", 40, 30), camera("bow", "stream2", 20, 15), camera("arm", "arm/stream1", 40, 30),
    camera("arm", "arm/small", 0, 0), camera("hand", "hand/stream1", 0, 0),
  ])
  expect("the first streams come first",
    told(all), "1 bow/stream1, 2 arm/stream1, 3 hand/stream1, 4 bow/stream2, 5 arm/small")
  const seen = tiles(all).map(({ number, title, stream }) => `${number} ${title} ${stream}`).join(", ")
  expect("each camera by its smallest stream", seen, "1 bow stream2, 2 arm arm/small, 3 hand hand/stream1")
  const one = tiles(lineup([camera("bow", "stream1", 40, 30), camera("bow", "stream2", 20, 15)]))
  expect("each stream of one camera", one.map(({ title }) => title).join(), "bow/stream1,bow/stream2")

  // Values of a server whose clock is slower by 50 ppm: 1.8 s in ten hours.
  let zero = null, oldest = 0
  for (let now = 0; now < 36_000_000; now += 60_000) {
    const at = now * 0.99995
    zero = zeroWith(zero, 7, now - at, now)
    oldest = Math.max(oldest, now - earliest(zero) - at)
  }
  expect("clocks that drift apart make no value old", oldest < 50, true)
  const late = zeroWith(zeroWith(null, 7, 1000, 6000), 7, 2200, 40_000)
  expect("a connection that begins with what waited", earliest(late), 1000)
  expect("another run of the server begins anew", earliest(zeroWith(late, 8, 39_000, 41_000)), 39_000)

  const stats = (id, key, name) => ({ id, name, ...key && { key } })
  const nemo = () => {
    const place = new Place()
    expect("the first server", place.proven("a"), null)
    for (const time of ["first", "again"])
      expect(`is no other: ${time}`, place.told("a", stats("1", "a", "Nemo")).other, undefined)
    return place
  }
  let place = nemo()
  expect("the same server", place.proven("a"), null)
  expect("another key", place.proven("b"), "Another server answers here, or Nemo with a new key")
  expect("said once", place.proven("b"), null)
  expect("said once, also by its statistics", place.told("b", stats("2", "b", "Dory")).other, undefined)
  expect("sessions with the former end",
    [place.isLeft("a"), place.isLeft("b"), place.isLeft(null)].join(), "true,false,false")
  place.told("a", stats("1", "a", "Nemo"))
  expect("whatever that one says", place.isLeft("a"), true)
  expect("without a proof", nemo().told(null, stats("2", "b", "Dory")).other, "Dory answers here, not Nemo as before")
  expect("a copy",
    nemo().told(null, stats("1", "b", "Nemo")).other, "Another server answers here, or Nemo with a new key")
  expect("a namesake", nemo().told(null, stats("2", "b", "Nemo")).other,
    "Another server answers here, not Nemo as before, of the same name")
  place = nemo()
  expect("two at once",
    place.told("a", stats("2", "b", "Dory")).aside, "Two servers have this address: Dory answers here, too")
  expect("of which the other is not learnt", place.told("a", stats("1", "a", "Nemo")).other, undefined)
  place = new Place()
  place.told("a", stats("1", "", "Old"))
  expect("a key for each session", place.proven("b"), null)
  const ofRun = (id, key, name) => ({ ...stats(id, key, name), key_is_of_this_run: true })
  place = new Place()
  for (const key of ["a", "b", "c"]) {
    expect(`a key for each run: ${key}`, place.proven(key), null)
    expect(`and the id is the same: ${key}`, place.told(key, ofRun("1", key, "Nemo")).other, undefined)
  }
  expect("sessions with the run before end", [place.isLeft("b"), place.isLeft("c")].join(), "true,false")
  expect("another key, which is of a run as well", place.proven("d"), null)
  expect("is of another one by its id",
    place.told("d", ofRun("2", "d", "Dory")).other, "Dory answers here, not Nemo as before")

  expect("no notice", notices([{ name: "a" }, { name: "b", notice: "" }]).length, 0)
  expect("the notice of the only stream",
    notices([{ name: "a", notice: "another publishes" }]).join("; "), "another publishes")
  const several = [{ name: "a" }, { name: "b", notice: "another publishes" }, { name: "c", notice: "as well" }]
  expect("notices of several streams", notices(several).join("; "), "b: another publishes; c: as well")

  // Of a server that comes in the place of another no value is known, however long those of that one would hold.
  const written = await import("/written.js?alone")
  const overlay = { stream: "s", where: "client", x: 0, y: 0, has_time: false, text: "",
    fields: [{ name: "depth", label: "Depth", limit_ms: 60000 }] }
  const values = { at_ms: 5, fields: { depth: { text: "3.5 m", age_ms: 0 } }, times: {} }
  const event = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
  let hasValues = true
  const served = globalThis.fetch
  globalThis.fetch = async () => new Response(
    event("overlay", overlay) + (hasValues ? event("telemetry", values) : ""), { headers: { "x-server-id": "a" } })
  const root = document.createElement("p")
  const size = { videoWidth: 40, videoHeight: 30, clientWidth: 40, clientHeight: 30 }
  const shows = async text => {
    for (let tries = 0; tries < 400 && root.textContent !== text; tries += 1) {
      await new Promise(done => globalThis.setTimeout(done, 50))
      written.write(root, "a", "s", size, true)
    }
    return root.textContent
  }
  written.follow(true)
  expect("a value", await shows("Depth 3.5 m"), "Depth 3.5 m")
  expect("what is measured", Object.keys(written.measured("a")).join(), "depth")
  written.write(root, "b", "s", size, true)
  expect("nothing of another server", [root.hidden, Object.keys(written.measured("b")).length].join(), "true,0")
  hasValues = false
  expect("a value of the server before", await shows("Depth --"), "Depth --")
  written.follow(false)
  globalThis.fetch = served

  // Of a clip it is said what it has not; a server that keeps less is asked for all that it keeps.
  const { clock } = await import("/watched.js")
  const clips = async (replies, around, kept) => {
    const asked = [], names = []
    const seconds = query => Number(query.get("seconds")) > 30 ? "more" : query.get("seconds")
    globalThis.fetch = async (path, options) => {
      if (!path.startsWith("api/clip")) return served(path, options)
      const query = new URLSearchParams(path.split("?")[1])
      asked.push(`${seconds(query)} ${query.get("from")}`)
      return replies.shift()
    }
    const wanted = { moment: clock() - 5000, before: 30000, after: 0, ...around }
    const options = { kept, signal: new AbortController().signal }
    const said = await saveClip(wanted, options, "", (_, name) => names.push(name))
    globalThis.fetch = served
    return { said, names: names.join(), asked: asked.join(", ") }
  }
  const refuses = status => Response.json({ error: "no" }, { status })
  const clip = (begun, lasted, age) => new Response("clip", { headers: {
    "content-disposition": 'attachment; filename="c.mp4"', "x-timestamp": begun, "x-content-duration": lasted,
    "x-age": age,
  } })
  const unsure = await clips([clip(1000, 30, 0.1)], {}, 60)
  expect("a clip by a clock that is not known, and the seconds",
    unsure.said.replace(/\d+ s after/, "s after"), "Saved c.mp4: 30 s, 4 B; it ends up to s after the key")
  expect("it is kept", unsure.names, "c.mp4")
  const ended = await clips([clip(1000, 30, 7)], {}, 60)
  expect("one that ended before", ended.said, "Saved c.mp4: 30 s, 4 B; it ended 7 s before it was asked for")
  const tooLate = await clips([clip(1000, 18, 0.1)], { captured: 1018000 }, 20)
  expect("one that came too late", tooLate.said,
    "Saved c.mp4: 18 s, 4 B; it came too late for the first 12 s, which are not kept any more")
  const still = await clips([refuses(409), refuses(422), clip(1000, 20, 0.1)], { captured: 1020000 }, 20)
  expect("of a stream that stands, all that is kept", still.asked, "more 990000000, more null, 20 null")
  const short = await clips([refuses(422), clip(1000, 10, 0.1)], {}, undefined)
  expect("of a ring that is not known, what it has", short.asked, "more null, null null")

  // Clocks that drift apart by 1.5 s in ten minutes, and one that is set or sleeps.
  const picture = await new Promise(done => Object.assign(document.createElement("canvas"), { width: 8, height: 8 })
    .toBlob(done, "image/jpeg")).then(blob => blob.arrayBuffer())
  const pictures = async step => {
    const ages = [], today = Date.now
    let at = 0, wall = 0, count = 0
    performance.now = () => at
    Date.now = () => wall
    const pull = controller => {
      if (count++ === 60) return controller.close()
      at += 10000
      wall += 10000 + step(count)
      const head = `${count > 1 ? "" : "--frame\r\n"}${header(at * 0.9975 / 1000, { length: picture.byteLength })}`
      for (const part of [bytes(head), new Uint8Array(picture), bytes("\r\n--frame\r\n")]) controller.enqueue(part)
    }
    const head = { headers: { "x-server-id": "a" } }
    globalThis.fetch = async (path, options) => path === "stream.mjpg"
      ? new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), head) : served(path, options)
    const end = await watch("stream.mjpg", new AbortController().signal, (_, age, time, id) => ages.push([age, id]))
      .catch(error => error.message)
    delete performance.now
    Date.now = today
    globalThis.fetch = served
    return { end, ages }
  }
  const drifting = await pictures(() => 0)
  expect("the end is said", drifting.end, "The server has ended the MJPEG stream")
  expect("all are shown, with their server", drifting.ages.filter(([, id]) => id === "a").length, 60)
  expect("none is old", Math.max(...drifting.ages.map(([age]) => age)) < 700, true)
  const stepped = await pictures(count => count === 7 ? 1500 : 0)
  expect("a step is said", [stepped.end, stepped.ages.length].join(), "This machine slept, or its clock was set,6")

  // A server that says nothing, with all its time over at once.
  const { fetch, setTimeout } = globalThis
  globalThis.fetch = (_, { signal }) =>
    new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)))
  globalThis.setTimeout = then => setTimeout(then, 0)
  const end = watch("stream.mjpg", new AbortController().signal, () => {})
  Object.assign(globalThis, { fetch, setTimeout })
  expect("silence is said", await end.catch(error => error.message), "No pictures come by HTTP")
  return wrong
}
