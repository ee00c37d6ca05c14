package data

// What the tests look at from outside the package.
var (
	Unpickle      = unpickle
	UnpickleBatch = unpickleBatch
	ReadIDXHeader = readIDXHeader
)

const MaxListed = maxListed

// Shuffled is the image at a position of an epoch of n.
func Shuffled(seed uint64, epoch int64, n int) func(position int64) int64 {
	return newPermutation(seed, epoch, n).at
}

// HeldOut lists the images of both parts of n images.
func HeldOut(n int, share float64) (train, test []int, err error) {
	for _, split := range []Split{Train, Test} {
		p, err := newPart(Config{Holdout: share}, n, split)
		if err != nil {
			return nil, nil, err
		}
		for i := range p.len() {
			if split == Train {
				train = append(train, p.at(i))
			} else {
				test = append(test, p.at(i))
			}
		}
	}
	return train, test, nil
}
