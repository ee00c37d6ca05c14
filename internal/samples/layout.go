package samples

// ToNCHW reorders n images from src [n,H,W,C] to dst [n,C,H,W]. The slices must
// not overlap.
func ToNCHW(dst, src []float32, n, h, w, c int) {
	transpose(dst, src, n, h*w, c)
}

// ToNHWC reorders n images from src [n,C,H,W] to dst [n,H,W,C]. The slices must
// not overlap.
func ToNHWC(dst, src []float32, n, h, w, c int) {
	transpose(dst, src, n, c, h*w)
}

// transpose turns n matrices of rows x columns.
func transpose(dst, src []float32, n, rows, columns int) {
	for i := range n {
		d, s := dst[i*rows*columns:][:rows*columns], src[i*rows*columns:][:rows*columns]
		for r := range rows {
			for c := range columns {
				d[c*rows+r] = s[r*columns+c]
			}
		}
	}
}
