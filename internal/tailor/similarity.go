package tailor

import "math"

// matrix says how alike readers are: the cosine of their vectors of visitors,
// faded, drawn to the mean of all pairs while few visitors are known.
type matrix struct {
	n    int // readers
	cell []float32
	mean float32 // also for readers that nothing is known of
}

// few is how many visitors of a reader weigh as much as the mean of all pairs.
const few = 20

func (s *matrix) at(a int, b uint16) float32 {
	if a < 0 || a >= s.n || int(b) >= s.n {
		return s.mean
	}
	return s.cell[a*s.n+int(b)]
}

// learnSimilarity computes the matrix from all sources, and frees the places of
// victims that see nothing any more.
func (m *Model) learnSimilarity(now minute) {
	n := len(m.victimNames)
	common := make([]float64, n*n) // the upper triangle
	var weight [maxSightings]float64
	for i := range m.sources.entries {
		seen := m.sources.entries[i].sightings
		for a := range seen {
			weight[a] = halved(now.since(seen[a].last), m.p.SimilarityHalfLife)
			for b := range a + 1 {
				x, y := int(min(seen[a].victim, seen[b].victim)), int(max(seen[a].victim, seen[b].victim))
				common[x*n+y] += weight[a] * weight[b]
			}
		}
	}
	var sum, norms float64
	for a := range n {
		for b := a + 1; b < n; b++ {
			sum += common[a*n+b]
			norms += math.Sqrt(common[a*n+a] * common[b*n+b])
		}
	}
	s := matrix{n: n, cell: make([]float32, n*n)}
	if norms > 0 {
		s.mean = float32(sum / norms)
	}
	for a := range n {
		for b := a; b < n; b++ {
			norm := math.Sqrt(common[a*n+a] * common[b*n+b])
			v := float32((common[a*n+b] + few*float64(s.mean)) / (norm + few))
			s.cell[a*n+b], s.cell[b*n+a] = v, v
		}
		if common[a*n+a] == 0 && m.victimNames[a] != "" {
			delete(m.victims, m.victimNames[a])
			m.victimNames[a] = ""
			m.freeVictims = append(m.freeVictims, uint16(a))
		}
	}
	m.similarity = s
}
