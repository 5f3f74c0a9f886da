// libdatachannel, whose ICE is libjuice, as a WHEP viewer: `datachannel.mjs URL PICTURES [telemetry]`.
import { createRequire } from "node:module"
import { answer, channel, counted, finish, first } from "./whep.mjs"

const { PeerConnection, Video, RtcpReceivingSession } = createRequire(`${process.cwd()}/`)("node-datachannel")

const pc = new PeerConnection("viewer", { iceServers: [], bindAddress: "127.0.0.1", disableAutoNegotiation: true })
const { told, message } = first()
// Before the video, which its section then is as well.
if (channel) pc.createDataChannel("own")
pc.onDataChannel(own => own.onMessage(text => message(own.getLabel(), text)))
const video = new Video("video", "RecvOnly")
video.addH264Codec(96)
const track = pc.addTrack(video)
track.setMediaHandler(new RtcpReceivingSession())
const { done, packet } = counted()
// RTCP comes by the same way; payload types of RTP with the marker are 0x80 and more as well (RFC 5761).
track.onMessage(data => { if (data[1] < 192 || data[1] > 223) packet(data[1] & 0x80) })
const gathered = new Promise(resolve => pc.onGatheringStateChange(state => { if (state === "complete") resolve() }))
pc.setLocalDescription()
await gathered
const { session, sdp } = await answer(pc.localDescription().sdp)
pc.setRemoteDescription(sdp, "answer")
await done
if (channel) await told
pc.close()
await finish(session, told)
