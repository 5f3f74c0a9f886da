// What the viewers in JavaScript share: the exchange, and counting pictures by the last packet of each.

export const [url, pictures] = [process.argv[2], Number(process.argv[3])]

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

export async function finish(session) {
  console.log("pictures", pictures)
  await fetch(session, { method: "DELETE" })
  process.exit(0)
}
