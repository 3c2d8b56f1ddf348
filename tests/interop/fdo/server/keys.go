package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/protocol"
)

// manufacturer is the number of its key; those of the owners follow.
const manufacturer = 0

// partyKey is a key of the manufacturer or of an owner.
type partyKey struct {
	crypto.Signer
	party int
	chain []*x509.Certificate
}

// keyRing makes the keys of the manufacturer and of the owners when they are first needed.
type keyRing struct {
	lock sync.Mutex
	ca   *authority
	keys map[string]*partyKey
	// short is whether keys on curves have a coordinate that begins with a zero byte, as one of 128 has by chance.
	short bool
}

func newKeyRing(short bool) (*keyRing, error) {
	ca, err := newAuthority()
	return &keyRing{ca: ca, keys: make(map[string]*partyKey), short: short}, err
}

func (k *keyRing) root() []*x509.Certificate {
	return k.ca.certificates()[1:]
}

// like gives a key of the same kind and size as another one: FDO 1.1 wants that within a voucher.
func (k *keyRing) like(other crypto.PublicKey, party int) (*partyKey, error) {
	kind, generate := k.kindOf(other)
	if generate == nil {
		return nil, fdo.ErrNotFound
	}
	name := fmt.Sprintf("%d %s", party, kind)
	k.lock.Lock()
	defer k.lock.Unlock()
	if known, found := k.keys[name]; found {
		return known, nil
	}
	signer, err := generate()
	if err != nil {
		return nil, err
	}
	certificate, err := k.ca.certify(signer.Public(), name)
	if err != nil {
		return nil, err
	}
	k.keys[name] = &partyKey{signer, party, append([]*x509.Certificate{certificate}, k.ca.certificates()...)}
	return k.keys[name], nil
}

// of finds the key that a voucher names.
func (k *keyRing) of(public crypto.PublicKey) (*partyKey, error) {
	k.lock.Lock()
	defer k.lock.Unlock()
	for _, key := range k.keys {
		if key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
			return key, nil
		}
	}
	return nil, fdo.ErrNotFound
}

func (k *keyRing) kindOf(public crypto.PublicKey) (string, func() (crypto.Signer, error)) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return key.Curve.Params().Name, func() (crypto.Signer, error) { return k.generateOnCurve(key.Curve) }
	case *rsa.PublicKey:
		bits := key.Size() * 8
		return fmt.Sprintf("RSA-%d", bits), func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	return "", nil
}

func generateEC(curve elliptic.Curve) (crypto.Signer, error) {
	return ecdsa.GenerateKey(curve, rand.Reader)
}

// generateOnCurve gives a key that is as short as the ring wants it.
func (k *keyRing) generateOnCurve(curve elliptic.Curve) (crypto.Signer, error) {
	full := curve.Params().BitSize - 8
	for {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil || !k.short || key.X.BitLen() <= full || key.Y.BitLen() <= full {
			return key, err
		}
	}
}

// written is a key as FDO writes it.
func (k *partyKey) written(kind protocol.KeyType, encoding protocol.KeyEncoding) (*protocol.PublicKey, error) {
	if encoding == protocol.X5ChainKeyEnc {
		return protocol.NewPublicKey(kind, k.chain, false)
	}
	switch public := k.Public().(type) {
	case *ecdsa.PublicKey:
		return protocol.NewPublicKey(kind, public, encoding == protocol.CoseKeyEnc)
	case *rsa.PublicKey:
		return protocol.NewPublicKey(kind, public, encoding == protocol.CoseKeyEnc)
	}
	return nil, fdo.ErrNotFound
}

// extend passes a voucher on to the next owner, whose key is written as the manufacturer's is.
func (k *partyKey) extend(voucher *fdo.Voucher, next *partyKey) (*fdo.Voucher, error) {
	if voucher.Header.Val.ManufacturerKey.Encoding == protocol.X5ChainKeyEnc {
		return fdo.ExtendVoucher(voucher, k.Signer, next.chain, nil)
	}
	switch public := next.Public().(type) {
	case *ecdsa.PublicKey:
		return fdo.ExtendVoucher(voucher, k.Signer, public, nil)
	case *rsa.PublicKey:
		return fdo.ExtendVoucher(voucher, k.Signer, public, nil)
	}
	return nil, fdo.ErrNotFound
}
