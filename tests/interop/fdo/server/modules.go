package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/fido-device-onboard/go-fdo/cbor"
	"github.com/fido-device-onboard/go-fdo/serviceinfo"
)

// moduleSequence gives each session its modules, one after the other.
type moduleSequence struct{ all *parties }

type namedModule struct {
	name string
	serviceinfo.OwnerModule
}

func (m *moduleSequence) Module(ctx context.Context) (string, serviceinfo.OwnerModule, error) {
	left, err := recall[[]namedModule](ctx, m.all.sessions, "modules")
	if err != nil {
		return "", nil, err
	}
	return left[0].name, left[0].OwnerModule, nil
}

func (m *moduleSequence) NextModule(ctx context.Context) (bool, error) {
	left, err := recall[[]namedModule](ctx, m.all.sessions, "modules")
	if err != nil {
		left = m.modules()
	} else {
		left = left[1:]
	}
	return len(left) > 0, m.all.sessions.keep(ctx, "modules", left)
}

func (m *moduleSequence) CleanupModules(context.Context) {}

func (m *moduleSequence) modules() []namedModule {
	modules := []namedModule{{"fdo.csr", &certificateModule{all: m.all}}}
	if m.all.otherModule == "" {
		return modules
	}
	return append([]namedModule{{m.all.otherModule, &unknownModule{}}}, modules...)
}

// certificateModule is the owner's side of fdo.csr.
type certificateModule struct {
	all     *parties
	began   bool
	ended   bool
	said    []statement // by the device, since it was last answered
	name    string
	waiting []byte // what is still to be sent, in CBOR
}

type statement struct {
	name string
	body []byte
}

// HandleInfo puts long values together, which come in pieces, over several messages.
func (c *certificateModule) HandleInfo(_ context.Context, name string, body io.Reader) error {
	piece, err := io.ReadAll(body)
	if last := len(c.said) - 1; last >= 0 && c.said[last].name == name {
		c.said[last].body = append(c.said[last].body, piece...)
	} else {
		c.said = append(c.said, statement{name, piece})
	}
	return err
}

// ProduceInfo sends as much as fits into one message; a long value goes in pieces.
func (c *certificateModule) ProduceInfo(_ context.Context, producer *serviceinfo.Producer) (bool, bool, error) {
	if !c.began {
		c.began = true
		return false, false, producer.WriteChunk("active", []byte{0xf5})
	}
	for _, each := range c.said {
		if err := c.receive(each.name, each.body); err != nil {
			return false, false, err
		}
	}
	c.said = nil
	if len(c.waiting) == 0 {
		return false, c.ended, nil
	}
	// Beside the text there is the head of its byte string, of which Available counts one byte.
	piece := c.waiting[:min(len(c.waiting), producer.Available(c.name)-2)]
	c.waiting = c.waiting[len(piece):]
	return len(c.waiting) > 0, false, producer.WriteChunk(c.name, piece)
}

func (c *certificateModule) receive(name string, body []byte) error {
	switch name {
	case "active":
		var active bool
		err := cbor.Unmarshal(body, &active)
		c.ended = !active
		return err
	case "cacerts-req":
		return c.cacerts(body)
	case "csrattrs-req":
		var ignored uint
		if err := cbor.Unmarshal(body, &ignored); err != nil {
			return err
		}
		return c.answer("csrattrs-res", c.all.attributes)
	case "simpleenroll-req", "simplereenroll-req":
		return c.enroll(strings.TrimSuffix(name, "-req"), body)
	}
	return fmt.Errorf("fdo.csr has no message %q", name)
}

func (c *certificateModule) cacerts(body []byte) error {
	var format uint
	if err := cbor.Unmarshal(body, &format); err != nil {
		return err
	}
	if format != 281 { // application/pkcs7-mime; smime-type=certs-only
		return c.answer("error", uint(5))
	}
	message, err := certsOnly(c.all.ca.certificates())
	if err != nil {
		return err
	}
	return c.answer("cacerts-res", base64.StdEncoding.EncodeToString(message))
}

func (c *certificateModule) enroll(operation string, body []byte) error {
	var text string
	if err := cbor.Unmarshal(body, &text); err != nil {
		return err
	}
	if c.all.refusal != 0 {
		return c.answer("error", c.all.refusal)
	}
	request, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	certificate, err := c.all.ca.issue(request)
	if err != nil {
		return err
	}
	return c.answer(operation+"-res", base64.StdEncoding.EncodeToString(certificate.Raw))
}

func (c *certificateModule) answer(name string, value any) error {
	encoded, err := cbor.Marshal(value)
	c.name, c.waiting = name, encoded
	return err
}

// unknownModule asks for a module that devices should not have, and goes on when the device says so.
type unknownModule struct{ asked, refused bool }

func (u *unknownModule) HandleInfo(_ context.Context, name string, body io.Reader) error {
	var active bool
	if err := cbor.NewDecoder(body).Decode(&active); err != nil {
		return err
	}
	if name != "active" || active {
		return fmt.Errorf("the device uses a module that it should not have: %s", name)
	}
	u.refused = true
	return nil
}

func (u *unknownModule) ProduceInfo(_ context.Context, producer *serviceinfo.Producer) (bool, bool, error) {
	if u.asked {
		return false, u.refused, nil
	}
	u.asked = true
	return false, false, producer.WriteChunk("active", []byte{0xf5})
}
