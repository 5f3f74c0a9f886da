// What the viewers in JavaScript share: the exchange, and counting pictures by the last packet of each.

export const [url, pictures, channel] = [process.argv[2], Number(process.argv[3]), process.argv[4]]

export async function answer(sdp) {
  const reply = await fetch(url, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: sdp })
  if (reply.status !== 201) throw new Error(`${reply.status} ${await reply.text()}`)
  return { session: new URL(reply.headers.get("Location"), url), sdp: await reply.text() }
}

/** Says when the first packet comes, and resolves when so many pictures have come; call `packet` with the marker bit of each packet. */
export function counted() {
  let count = 0, begun = false, enough
  const done = new Promise(resolve => { enough = resolve })
  const packet = marker => {
    if (!begun) console.log("first picture")
    begun = true
    if (marker && ++count === pictures) enough()
  }
  return { done, packet }
}

/** What comes by the server's data channel first: call `message` with each. */
export function first() {
  let message
  const told = new Promise(resolve => { message = (label, text) => resolve(`${label} ${text}`) })
  return { told, message }
}

export async function finish(session, told) {
  console.log("pictures", pictures)
  if (channel) console.log(await told)
  await fetch(session, { method: "DELETE" })
  process.exit(0)
}
