"Pictures and clips that are small to send and cost much to open: thousands of scans, each over the whole picture"
import io
import struct
from fractions import Fraction

LONGEST_RUN = 32_767        # blocks that one code of a progressive scan can pass over
END_OF_BAND = 14            # the code for such runs: 14 more bits say how far


def segment(marker, *parts):
    "A segment of a JPEG with its length"
    body = b"".join(parts)
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body

def huffman(place, symbols):
    "A table whose n-th symbol has a code of n bits: 0, 10, 110, …"
    counts = [1] * len(symbols) + [0] * (16 - len(symbols))
    return segment(0xC4, bytes([place, *counts, *symbols]))

def packed(bits):
    "Bits as bytes of a scan, filled up with ones"
    filled = bits + "1" * (-len(bits) % 8)
    return int(filled, 2).to_bytes(len(filled) // 8, "big").replace(b"\xff", b"\xff\0")

def scan(first, last, high, low, data):
    "One pass over some of the coefficients"
    return segment(0xDA, bytes([1, 1, 0, first, last, high << 4 | low])) + data

def pass_over(blocks):
    "Bits that say of each block that nothing is in it"
    codes = []
    while blocks > 0:
        run = max(min(blocks, LONGEST_RUN), 1 << END_OF_BAND)
        codes.append("0" + format(run - (1 << END_OF_BAND), f"0{END_OF_BAND}b"))
        blocks -= run
    return "".join(codes)

def jpeg_of_scans(
    w, h,     # pixels
    n,        # scans, each of about two bytes for 30,000 blocks
) -> bytes:
    "A grey progressive JPEG that a decoder walks through `n` times"
    blocks = -(-w // 8) * -(-h // 8)
    head = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, h, w, 1), b"\1\x11\0"),
        huffman(0x00, [0]),
        huffman(0x10, [END_OF_BAND << 4, 0]),
    ]
    nothing = packed(pass_over(blocks))
    average = scan(0, 0, 0, 1, bytes(-(-blocks // 8)))
    rough = scan(1, 63, 0, 1, nothing)
    finer = scan(1, 63, 1, 0, nothing)
    return b"".join([*head, average, rough, finer * (n - 1), b"\xff\xd9"])

def clip_of_scans(
    w, h,     # pixels
    n,        # scans of a frame
    frames,
) -> bytes:
    "An AVI of such pictures, 25 a second"
    import av
    picture = jpeg_of_scans(w, h, n)
    out = io.BytesIO()
    with av.open(out, "w", format="avi") as clip:
        stream = clip.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = w, h, "yuvj420p"
        for i in range(frames):
            packet = av.Packet(picture)
            packet.stream = stream
            packet.pts = packet.dts = i
            packet.time_base = Fraction(1, 25)
            packet.is_keyframe = True
            clip.mux(packet)
    return out.getvalue()
