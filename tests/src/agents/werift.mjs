// werift as a WHEP viewer: `werift.mjs URL PICTURES`.
import { createRequire } from "node:module"
import { answer, counted, finish } from "./whep.mjs"

const { RTCPeerConnection, useH264 } = createRequire(`${process.cwd()}/`)("werift")

const pc = new RTCPeerConnection({
  iceServers: [],
  iceUseIpv6: false,
  iceAdditionalHostAddresses: ["127.0.0.1"],
  codecs: { audio: [], video: [useH264()] },
})
const { done, packet } = counted()
pc.onTrack.subscribe(track => track.onReceiveRtp.subscribe(rtp => packet(rtp.header.marker)))
pc.addTransceiver("video", { direction: "recvonly" })
await pc.setLocalDescription(await pc.createOffer())
const { session, sdp } = await answer(pc.localDescription.sdp)
await pc.setRemoteDescription({ type: "answer", sdp })
await done
await pc.close()
await finish(session)
