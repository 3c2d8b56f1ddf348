package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding"
	"sync"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/kex"
	"github.com/fido-device-onboard/go-fdo/protocol"
	"github.com/fido-device-onboard/go-fdo/serviceinfo"
)

// sessions holds what is known of each run of a protocol, by its token; in memory.
type sessions struct {
	lock    sync.Mutex
	byToken map[string]map[string]any
}

type tokenKey struct{}

func newSessions() *sessions {
	return &sessions{byToken: make(map[string]map[string]any)}
}

func (s *sessions) NewToken(context.Context, protocol.Protocol) (string, error) {
	token := rand.Text()
	s.lock.Lock()
	defer s.lock.Unlock()
	s.byToken[token] = make(map[string]any)
	return token, nil
}

func (s *sessions) InvalidateToken(ctx context.Context) error {
	token, _ := s.TokenFromContext(ctx)
	s.lock.Lock()
	defer s.lock.Unlock()
	if _, known := s.byToken[token]; !known {
		return fdo.ErrNotFound
	}
	delete(s.byToken, token)
	return nil
}

func (s *sessions) TokenContext(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

func (s *sessions) TokenFromContext(ctx context.Context) (string, bool) {
	token, known := ctx.Value(tokenKey{}).(string)
	return token, known
}

func (s *sessions) keep(ctx context.Context, name string, value any) error {
	token, _ := s.TokenFromContext(ctx)
	s.lock.Lock()
	defer s.lock.Unlock()
	values, known := s.byToken[token]
	if !known {
		return fdo.ErrInvalidSession
	}
	values[name] = value
	return nil
}

func recall[T any](ctx context.Context, s *sessions, name string) (value T, err error) {
	token, _ := s.TokenFromContext(ctx)
	s.lock.Lock()
	defer s.lock.Unlock()
	values, known := s.byToken[token]
	if !known {
		return value, fdo.ErrInvalidSession
	}
	value, known = values[name].(T)
	if !known {
		return value, fdo.ErrNotFound
	}
	return value, nil
}

func (s *sessions) SetDeviceCertChain(ctx context.Context, chain []*x509.Certificate) error {
	return s.keep(ctx, "device certificates", chain)
}

func (s *sessions) DeviceCertChain(ctx context.Context) ([]*x509.Certificate, error) {
	return recall[[]*x509.Certificate](ctx, s, "device certificates")
}

func (s *sessions) SetIncompleteVoucherHeader(ctx context.Context, header *fdo.VoucherHeader) error {
	return s.keep(ctx, "voucher header", header)
}

func (s *sessions) IncompleteVoucherHeader(ctx context.Context) (*fdo.VoucherHeader, error) {
	return recall[*fdo.VoucherHeader](ctx, s, "voucher header")
}

func (s *sessions) SetTO0SignNonce(ctx context.Context, nonce protocol.Nonce) error {
	return s.keep(ctx, "TO0 nonce", nonce)
}

func (s *sessions) TO0SignNonce(ctx context.Context) (protocol.Nonce, error) {
	return recall[protocol.Nonce](ctx, s, "TO0 nonce")
}

func (s *sessions) SetTO1ProofNonce(ctx context.Context, nonce protocol.Nonce) error {
	return s.keep(ctx, "TO1 nonce", nonce)
}

func (s *sessions) TO1ProofNonce(ctx context.Context) (protocol.Nonce, error) {
	return recall[protocol.Nonce](ctx, s, "TO1 nonce")
}

func (s *sessions) SetGUID(ctx context.Context, guid protocol.GUID) error {
	return s.keep(ctx, "GUID", guid)
}

func (s *sessions) GUID(ctx context.Context) (protocol.GUID, error) {
	return recall[protocol.GUID](ctx, s, "GUID")
}

func (s *sessions) SetRvInfo(ctx context.Context, info [][]protocol.RvInstruction) error {
	return s.keep(ctx, "rendezvous", info)
}

func (s *sessions) RvInfo(ctx context.Context) ([][]protocol.RvInstruction, error) {
	return recall[[][]protocol.RvInstruction](ctx, s, "rendezvous")
}

func (s *sessions) SetReplacementGUID(ctx context.Context, guid protocol.GUID) error {
	return s.keep(ctx, "next GUID", guid)
}

func (s *sessions) ReplacementGUID(ctx context.Context) (protocol.GUID, error) {
	return recall[protocol.GUID](ctx, s, "next GUID")
}

func (s *sessions) SetReplacementHmac(ctx context.Context, hmac protocol.Hmac) error {
	return s.keep(ctx, "next HMAC", hmac)
}

func (s *sessions) ReplacementHmac(ctx context.Context) (protocol.Hmac, error) {
	return recall[protocol.Hmac](ctx, s, "next HMAC")
}

func (s *sessions) SetProveDeviceNonce(ctx context.Context, nonce protocol.Nonce) error {
	return s.keep(ctx, "nonce of message 61", nonce)
}

func (s *sessions) ProveDeviceNonce(ctx context.Context) (protocol.Nonce, error) {
	return recall[protocol.Nonce](ctx, s, "nonce of message 61")
}

func (s *sessions) SetSetupDeviceNonce(ctx context.Context, nonce protocol.Nonce) error {
	return s.keep(ctx, "nonce of message 64", nonce)
}

func (s *sessions) SetupDeviceNonce(ctx context.Context) (protocol.Nonce, error) {
	return recall[protocol.Nonce](ctx, s, "nonce of message 64")
}

func (s *sessions) SetMTU(ctx context.Context, size uint16) error {
	return s.keep(ctx, "MTU", size)
}

func (s *sessions) MTU(ctx context.Context) (uint16, error) {
	return recall[uint16](ctx, s, "MTU")
}

type keyExchange struct {
	suite kex.Suite
	state []byte
}

// SetXSession keeps a copy: the library wipes the keys of the session afterwards.
func (s *sessions) SetXSession(ctx context.Context, suite kex.Suite, session kex.Session) error {
	state, err := session.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	return s.keep(ctx, "key exchange", keyExchange{suite, state})
}

func (s *sessions) XSession(ctx context.Context) (kex.Suite, kex.Session, error) {
	kept, err := recall[keyExchange](ctx, s, "key exchange")
	if err != nil {
		return "", nil, err
	}
	session := kept.suite.New(nil, kex.A128GcmCipher) // the kept state names the real one
	return kept.suite, session, session.(encoding.BinaryUnmarshaler).UnmarshalBinary(kept.state)
}

type devmod struct {
	values   serviceinfo.Devmod
	modules  []string
	complete bool
}

func (s *sessions) SetDevmod(ctx context.Context, said serviceinfo.Devmod, modules []string, complete bool) error {
	return s.keep(ctx, "devmod", devmod{said, modules, complete})
}

func (s *sessions) Devmod(ctx context.Context) (serviceinfo.Devmod, []string, bool, error) {
	kept, err := recall[devmod](ctx, s, "devmod")
	return kept.values, kept.modules, kept.complete, err
}
