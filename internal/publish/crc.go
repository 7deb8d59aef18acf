package publish

import "hash/crc32"

// crcPowers[n] is x to the power of 2^n bytes (8·2^n bits) modulo the polynomial
// of CRC-32, bits reversed as everywhere in it.
var crcPowers = func() (powers [64]uint32) {
	p := uint32(1) << (31 - 8) // x^8
	for n := range powers {
		powers[n] = p
		p = crcMultiply(p, p)
	}
	return powers
}()

// crcMultiply multiplies two polynomials over GF(2) modulo that of CRC-32.
func crcMultiply(a, b uint32) uint32 {
	product := uint32(0)
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.IEEE&-(b&1)
	}
	return product
}

// crcCombine returns the CRC-32 of two texts behind each other: first is that of
// the one, second that of the other, which has length bytes.
func crcCombine(first, second uint32, length int) uint32 {
	for n := 0; length > 0; n, length = n+1, length>>1 {
		if length&1 != 0 {
			first = crcMultiply(first, crcPowers[n])
		}
	}
	return first ^ second
}
