"""Counter mode from any block on, by the encryption of Galois/counter mode (NIST SP 800-38D, 7.1 and 7.2).

That mode counts up from a block J0, which it makes of the nonce: of one with 16 bytes J0 = (nonce H + L) H in a field
of 2^128 elements, H being what the cipher makes of zeros and L the nonce's length. So the nonce for a J0 that is wanted
is (J0 / H + L) / H. It must not know what the bytes are for.
"""

from __future__ import annotations

COUNTED = 1 << 32  # blocks that the mode tells apart
BYTES = 16  # of a block, and of a nonce
_MODULUS = (1 << 128) | 0x87  # x^128 + x^7 + x^2 + x + 1
_ALL = (1 << 128) - 1


def inverse(hashing: bytes) -> int:
    """1 / H in the field, by Euclid's algorithm; H is the cipher's block of zeros."""
    u, v, g, h = _element(hashing), _MODULUS, 1, 0
    while u != 1:
        shift = u.bit_length() - v.bit_length()
        if shift < 0:
            u, v, g, h, shift = v, u, h, g, -shift
        u, g = u ^ (v << shift), g ^ (h << shift)
    return _reduced(g)


def nonce(block: int, inverse: int) -> bytes:
    """With this nonce the first block of data meets block number `block`, below 2^32, of plain counter mode."""
    before = _element(((block - 1) % COUNTED).to_bytes(BYTES, "big"))  # the mode begins one behind J0
    length = _element((8 * BYTES).to_bytes(BYTES, "big"))
    return _block(_times(_times(before, inverse) ^ length, inverse))


class Nonces:
    """The same for one H and many blocks, in a tenth of the time: what the bits of a block's number add, which are
    linear in it, is made once."""

    def __init__(self, inverse: int) -> None:
        self._none = int.from_bytes(_block(_times(_element((8 * BYTES).to_bytes(BYTES, "big")), inverse)), "big")
        power = _times(_times(1 << (8 * BYTES - COUNTED.bit_length() + 1), inverse), inverse)  # of the highest bit
        self._bits = list[int]()
        for _ in range(COUNTED.bit_length() - 1):
            self._bits.append(int.from_bytes(_block(power), "big"))
            power = _reduced(power << 1)

    def of(self, block: int) -> bytes:
        """As `nonce`."""
        found, left = self._none, (block - 1) % COUNTED
        while left:
            bit = left.bit_length()
            found ^= self._bits[-bit]
            left ^= 1 << (bit - 1)
        return found.to_bytes(BYTES, "big")


def _element(block: bytes) -> int:
    """As a polynomial, with x^i at bit i: in a block the first bit of the first byte is 1."""
    return int(f"{int.from_bytes(block, 'big'):0128b}"[::-1], 2)


def _block(element: int) -> bytes:
    return int(f"{element:0128b}"[::-1], 2).to_bytes(BYTES, "big")


def _times(a: int, b: int) -> int:
    total = 0
    while b:
        low = b & -b
        total ^= a * low
        b ^= low
    return _reduced(total)


def _reduced(total: int) -> int:
    while high := total >> 128:  # x^128 is x^7 + x^2 + x + 1
        total = (total & _ALL) ^ high ^ (high << 1) ^ (high << 2) ^ (high << 7)
    return total
