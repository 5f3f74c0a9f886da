"""aiortc as a WHEP viewer: `viewer.py URL PICTURES` says when the first picture is decoded, and ends after so many."""

import asyncio
import sys
import urllib.parse
import urllib.request

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription

# By itself it leaves loopback out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def post(url, sdp):
    request = urllib.request.Request(url, sdp.encode(), {"Content-Type": "application/sdp"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return urllib.parse.urljoin(url, reply.headers["Location"]), reply.read().decode()


async def main(url, pictures):
    pc = RTCPeerConnection()
    pc.addTransceiver("video", direction="recvonly")
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
    urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=10)
    await pc.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
