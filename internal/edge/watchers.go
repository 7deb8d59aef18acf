package edge

import (
	"net/http"

	"muster"
	"muster/internal/abuse"
	"muster/internal/enroll"
	"muster/internal/misuse"
	"muster/internal/wire"
)

// register answers POST /watchers. A taken id is 500: the PHP client makes new
// credentials on nothing else.
func (e *Edge) register(w http.ResponseWriter, r *http.Request) error {
	if err := e.spend(r, abuse.Client{Addr: e.cfg.Addr(r)}); err != nil {
		return err
	}
	body, release, err := e.anonymous.read(w, r)
	if err != nil {
		return err
	}
	defer release()
	c, err := wire.DecodeRegister(body)
	if err != nil {
		return err
	}
	err = e.cfg.Machines.Register(r.Context(), enroll.Registration{
		MachineID: c.MachineID, Password: c.Password,
		Key: r.Header.Get("X-Enrolment-Key"), UserAgent: r.UserAgent(),
	})
	if muster.CodeOf(err) == muster.Exists {
		e.write(w, http.StatusInternalServerError, wire.AppendError(nil, "User already registered.", ""))
		return nil
	}
	if err != nil {
		return err
	}
	return e.ok(w)
}

// login answers POST /watchers/login.
func (e *Edge) login(w http.ResponseWriter, r *http.Request) error {
	body, release, err := e.anonymous.read(w, r)
	if err != nil {
		return err
	}
	defer release()
	l, err := wire.DecodeLogin(body)
	if err != nil {
		return err
	}
	token, err := e.cfg.Machines.Login(r.Context(), enroll.Login{
		MachineID: l.MachineID, Password: l.Password, Scenarios: l.Scenarios, UserAgent: r.UserAgent(),
		Admit: func(who *enroll.Identity) error {
			if who == nil {
				return e.cfg.Abuse.WrongPassword(e.cfg.Addr(r), l.MachineID)
			}
			client := e.client(r, who)
			client.NoScenarios = len(l.Scenarios) == 0
			return e.cfg.Abuse.Login(client)
		},
	})
	if err != nil {
		return err
	}
	e.write(w, http.StatusOK, wire.AppendLogin(nil, token.Text, token.Expires))
	return nil
}

// enrol answers POST /watchers/enroll: 201 tells cscli that it worked, 200 that
// the machine was enrolled before.
func (e *Edge) enrol(w http.ResponseWriter, r *http.Request) error {
	id, body, release, err := e.authenticated(w, r, misuse.Other)
	if err != nil {
		return err
	}
	defer release()
	q, err := wire.DecodeEnrol(body)
	if err != nil {
		return err
	}
	done, err := e.cfg.Machines.Enrol(r.Context(), id.Machine, enroll.Enrolment{
		Key: q.AttachmentKey, Name: q.Name, Tags: q.Tags, Overwrite: q.Overwrite, Auto: q.AutoEnroll,
	})
	switch {
	case err != nil:
		return err
	case done.Already:
		e.write(w, http.StatusOK, wire.AppendMessage(nil, "the security engine is already enrolled"))
	case done.ClaimURL != "":
		e.write(w, http.StatusCreated, wire.AppendEnrolLink(nil, done.ClaimURL, done.ClaimExpires))
	case done.State == muster.Active:
		e.write(w, http.StatusCreated, wire.AppendMessage(nil, "OK"))
	default:
		e.write(w, http.StatusCreated, wire.AppendMessage(nil, "enrolled: an operator has to accept this machine before it counts"))
	}
	return nil
}

// reset answers POST /watchers/reset.
func (e *Edge) reset(w http.ResponseWriter, r *http.Request) error {
	if err := e.spend(r, abuse.Client{Addr: e.cfg.Addr(r)}); err != nil {
		return err
	}
	body, release, err := e.anonymous.read(w, r)
	if err != nil {
		return err
	}
	defer release()
	c, err := wire.DecodeReset(body)
	if err != nil {
		return err
	}
	if err := e.cfg.Machines.Reset(r.Context(), c.MachineID); err != nil {
		return err
	}
	return e.ok(w)
}

// unregister answers DELETE /watchers/self.
func (e *Edge) unregister(w http.ResponseWriter, r *http.Request) error {
	id, err := e.authenticate(r, misuse.Other)
	if err != nil {
		return err
	}
	if err := e.cfg.Machines.Unregister(r.Context(), id.Machine); err != nil {
		return err
	}
	return e.ok(w)
}

// heartbeat answers GET /heartbeat.
func (e *Edge) heartbeat(w http.ResponseWriter, r *http.Request) error {
	id, err := e.authenticate(r, misuse.Other)
	if err != nil {
		return err
	}
	e.cfg.Machines.Touch(id.Machine, enroll.ContactHeartbeat, engineVersion(r))
	return e.ok(w)
}
