package crowd

// Member is a convicted address of a range.
type Member struct {
	Groups []uint32 // who supports its conviction, see Supporters
}

// ConvictRange reports whether a range is convicted as a whole.
func (p *Parameters) ConvictRange(v6 bool, members []Member, good int) bool { panic("skeleton") }
