"""aiortc as a WHEP viewer: `viewer.py URL PICTURES` says when the first picture is decoded, and ends after so many. A
third word: `telemetry` says what comes by the server's data channel first; `hostile` sends what no viewer should by it.
"""

import asyncio
import sys
import urllib.parse
import urllib.request

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription

from hostile import attack

# By itself it leaves loopback out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def post(url, sdp):
    request = urllib.request.Request(url, sdp.encode(), {"Content-Type": "application/sdp"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return urllib.parse.urljoin(url, reply.headers["Location"]), reply.read().decode()


async def main(url, pictures, channel=None):
    pc = RTCPeerConnection()
    pc.addTransceiver("video", direction="recvonly")
    told = asyncio.Queue()
    if channel:
        pc.createDataChannel("")
        pc.on("datachannel", lambda channel: channel.on("message", lambda text: told.put_nowait((channel.label, text))))
    tracks = asyncio.Queue()
    pc.on("track", tracks.put_nowait)
    await pc.setLocalDescription(await pc.createOffer())
    session, answer = await asyncio.to_thread(post, url, pc.localDescription.sdp)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    track = await tracks.get()
    for number in range(pictures):
        await track.recv()
        if number == 0:
            print("first picture", flush=True)
    print("pictures", pictures, flush=True)
    if channel:
        print(*await told.get(), flush=True)
    if channel == "hostile":
        await attack(pc.sctp)
        print("attacked", flush=True)
    urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=10)
    await pc.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
