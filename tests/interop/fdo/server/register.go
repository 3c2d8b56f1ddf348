package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/cbor"
	"github.com/fido-device-onboard/go-fdo/cose"
	"github.com/fido-device-onboard/go-fdo/protocol"
)

type redirect = cose.Sign1[protocol.To1d, []byte]

type registration struct {
	redirect *redirect
	voucher  *fdo.Voucher
	until    time.Time
}

// register holds the vouchers of all owners, and what they have registered for rendezvous; in memory.
type register struct {
	lock          sync.Mutex
	directory     string
	vouchers      map[protocol.GUID]*fdo.Voucher
	registrations map[protocol.GUID]registration
}

func newRegister(directory string) *register {
	return &register{
		directory:     directory,
		vouchers:      make(map[protocol.GUID]*fdo.Voucher),
		registrations: make(map[protocol.GUID]registration),
	}
}

// AddVoucher also writes the voucher into the directory, as <guid>.pem.
func (r *register) AddVoucher(_ context.Context, voucher *fdo.Voucher) error {
	guid := voucher.Header.Val.GUID
	r.lock.Lock()
	defer r.lock.Unlock()
	r.vouchers[guid] = voucher
	encoded, err := cbor.Marshal(voucher)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "OWNERSHIP VOUCHER", Bytes: encoded})
	return os.WriteFile(filepath.Join(r.directory, fmt.Sprintf("%x.pem", guid[:])), block, 0o600)
}

func (r *register) Voucher(_ context.Context, guid protocol.GUID) (*fdo.Voucher, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	voucher, known := r.vouchers[guid]
	if !known {
		return nil, fdo.ErrNotFound
	}
	return voucher, nil
}

func (r *register) forget(guid protocol.GUID) {
	r.lock.Lock()
	defer r.lock.Unlock()
	delete(r.vouchers, guid)
	delete(r.registrations, guid)
}

func (r *register) SetRVBlob(_ context.Context, voucher *fdo.Voucher, said *redirect, until time.Time) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.registrations[voucher.Header.Val.GUID] = registration{said, voucher, until}
	return nil
}

func (r *register) RVBlob(_ context.Context, guid protocol.GUID) (*redirect, *fdo.Voucher, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	known, found := r.registrations[guid]
	if !found || time.Now().After(known.until) {
		return nil, nil, fdo.ErrNotFound
	}
	return known.redirect, known.voucher, nil
}
