package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Service is one part of a process. Each function may be nil.
type Service struct {
	Name string
	// Start returns when the service is ready for those that start after it.
	Start func(ctx context.Context) error
	// Run works until ctx ends or Stop is called, and returns nil then. A Run
	// that returns before that ends the whole group: with its error, or with one
	// that says that it ended.
	Run func(ctx context.Context) error
	// Stop ends the service and releases what Start took. It is called once, when
	// all services that started after this one have stopped, and never when Start
	// failed. ctx ends after StopTimeout.
	Stop func(ctx context.Context) error
	// StopTimeout bounds Stop and the end of Run together; zero means 5 s. A
	// service that is late is reported, and left behind.
	StopTimeout time.Duration
}

// Group starts services in the order in which they were added, runs them, and
// stops them in reverse order.
type Group struct {
	Log      *slog.Logger // nil discards
	services []Service
}

// Add appends services to the order.
func (g *Group) Add(services ...Service) { g.services = append(g.services, services...) }

// started is a service whose Start succeeded.
type started struct {
	Service
	cancel context.CancelFunc // of Run's context
	done   chan error         // Run's result; nil without Run
}

// ended says that a service's Run returned.
type ended struct {
	name string
	err  error
}

// Run starts everything, waits until ctx ends or a service does, and stops what
// was started. It returns nil only when ctx ended the group and every service
// stopped in time without error; otherwise all errors, joined, each with its
// service's name.
func (g *Group) Run(ctx context.Context) error {
	log := g.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var (
		running []*started
		errs    []error
		first   = make(chan ended, len(g.services))
	)
	for _, s := range g.services {
		if ctx.Err() != nil {
			break
		}
		if s.Start != nil {
			if err := s.Start(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: start: %w", s.Name, err))
				break
			}
		}
		running = append(running, launch(ctx, s, first))
	}
	if len(errs) == 0 {
		select {
		case <-ctx.Done():
		case e := <-first:
			// A Run that saw ctx end before we did has ended as it should.
			if ctx.Err() == nil {
				errs = append(errs, unexpected(e))
			}
		}
	}
	for i := len(running) - 1; i >= 0; i-- {
		s := running[i]
		begin := time.Now()
		if err := s.end(); err != nil {
			errs = append(errs, fmt.Errorf("%s: stop: %w", s.Name, err))
		}
		log.Debug("service stopped", slog.String(KeyName, s.Name), slog.Duration(KeyDuration, time.Since(begin)))
	}
	return errors.Join(errs...)
}

func unexpected(e ended) error {
	if e.err == nil {
		return fmt.Errorf("%s: ended though nobody stopped it", e.name)
	}
	return fmt.Errorf("%s: %w", e.name, e.err)
}

// launch begins Run in a context that outlives ctx, so that a service works on
// until its turn to stop comes.
func launch(ctx context.Context, s Service, first chan<- ended) *started {
	st := &started{Service: s, cancel: func() {}}
	if s.Run == nil {
		return st
	}
	var runCtx context.Context
	runCtx, st.cancel = context.WithCancel(context.WithoutCancel(ctx))
	st.done = make(chan error, 1)
	go func() {
		err := s.Run(runCtx)
		if errors.Is(err, context.Canceled) && runCtx.Err() != nil {
			err = nil
		}
		first <- ended{s.Name, err}
		st.done <- err
	}()
	return st
}

// end stops one service and waits for its Run, both within StopTimeout.
func (s *started) end() error {
	timeout := s.StopTimeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() {
		var err error
		if s.Stop != nil {
			err = s.Stop(ctx)
		}
		s.cancel() // after Stop: it may need Run at work to drain
		if s.done != nil {
			err = errors.Join(err, <-s.done)
		}
		stopped <- err
	}()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	// The service may have answered to the deadline itself, with more to say.
	select {
	case err := <-stopped:
		return err
	case <-time.After(100 * time.Millisecond):
		s.cancel()
		return fmt.Errorf("still not stopped after %s", timeout)
	}
}
