package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"net"
	"net/url"
	"strconv"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/cbor"
	"github.com/fido-device-onboard/go-fdo/custom"
	fdohttp "github.com/fido-device-onboard/go-fdo/http"
	"github.com/fido-device-onboard/go-fdo/protocol"
)

// parties are the manufacturer and the owners: what they decide.
type parties struct {
	options
	port     uint16
	keys     *keyRing
	sessions *sessions
	register *register
	ca       *authority
}

type voucherKey struct{}

// manufacturerKey answers message 10: the voucher begins with a key of the kind that the device has.
func (p *parties) manufacturerKey(
	_ context.Context, info *custom.DeviceMfgInfo, chain []*x509.Certificate,
) (string, protocol.PublicKey, error) {
	key, err := p.keys.like(chain[0].PublicKey, manufacturer)
	if err != nil {
		return "", protocol.PublicKey{}, err
	}
	written, err := key.written(info.KeyType, info.KeyEncoding)
	if err != nil {
		return "", protocol.PublicKey{}, err
	}
	return info.DeviceInfo, *written, nil
}

// sell passes the voucher on, from the manufacturer to the first owner and from each owner to the next one.
func (p *parties) sell(_ context.Context, voucher *fdo.Voucher) error {
	public, err := voucher.OwnerPublicKey()
	if err != nil {
		return err
	}
	seller, err := p.keys.of(public)
	if err != nil {
		return err
	}
	buyer, err := p.keys.like(public, seller.party%p.owners+1)
	if err != nil {
		return err
	}
	extended, err := seller.extend(voucher, buyer)
	if err == nil {
		*voucher = *extended
	}
	return err
}

// announce registers the owner of a voucher at the rendezvous server (TO0).
func (p *parties) announce(ctx context.Context, voucher fdo.Voucher) error {
	if p.bypass {
		return nil
	}
	client := &fdo.TO0Client{Vouchers: p.register, OwnerKeys: p}
	address := net.IPv4(127, 0, 0, 1).To4()
	here := protocol.RvTO2Addr{IPAddress: &address, Port: p.port, TransportProtocol: protocol.HTTPTransport}
	guid := voucher.Header.Val.GUID
	ctx = context.WithValue(ctx, voucherKey{}, guid)
	_, err := client.RegisterBlob(ctx, &fdohttp.Transport{BaseURL: p.rendezvous}, guid, []protocol.RvTO2Addr{here})
	return err
}

func (p *parties) rendezvousInfo(context.Context, *fdo.Voucher) ([][]protocol.RvInstruction, error) {
	port, err := portOf(p.rendezvous)
	if err != nil {
		return nil, err
	}
	values := []struct {
		variable protocol.RvVar
		value    any
	}{
		{protocol.RVProtocol, protocol.RVProtHTTP},
		{protocol.RVIPAddress, net.IPv4(127, 0, 0, 1).To4()},
		{protocol.RVDevPort, port},
		{protocol.RVOwnerPort, port},
	}
	var directive []protocol.RvInstruction
	for _, each := range values {
		encoded, err := cbor.Marshal(each.value)
		if err != nil {
			return nil, err
		}
		directive = append(directive, protocol.RvInstruction{Variable: each.variable, Value: encoded})
	}
	if p.bypass {
		directive = append(directive, protocol.RvInstruction{Variable: protocol.RVBypass})
	}
	return [][]protocol.RvInstruction{directive}, nil
}

func portOf(address string) (uint16, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return 0, err
	}
	port, err := strconv.ParseUint(parsed.Port(), 10, 16)
	return uint16(port), err
}

func (p *parties) nextRendezvousInfo(ctx context.Context, _ fdo.Voucher) ([][]protocol.RvInstruction, error) {
	return p.rendezvousInfo(ctx, nil)
}

func (p *parties) reuses(context.Context, fdo.Voucher) (bool, error) {
	return p.reuse, nil
}

func (p *parties) verify(_ context.Context, voucher fdo.Voucher) error {
	if err := voucher.VerifyEntries(); err != nil {
		return err
	}
	return voucher.VerifyCertChainHash()
}

func (p *parties) serviceInfoSize(ctx context.Context, _ fdo.Voucher) (uint16, error) {
	if p.serviceInfo == 0 {
		return p.sessions.MTU(ctx) // what the device takes
	}
	return uint16(p.serviceInfo), nil
}

// OwnerKey is that of the owner whom the voucher at hand names.
func (p *parties) OwnerKey(
	ctx context.Context, _ protocol.KeyType, _ int,
) (crypto.Signer, []*x509.Certificate, error) {
	guid, known := ctx.Value(voucherKey{}).(protocol.GUID)
	if !known {
		var err error
		if guid, err = p.sessions.GUID(ctx); err != nil {
			return nil, nil, err
		}
	}
	voucher, err := p.register.Voucher(ctx, guid)
	if err != nil {
		return nil, nil, err
	}
	public, err := voucher.OwnerPublicKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := p.keys.of(public)
	if err != nil {
		return nil, nil, err
	}
	return key.Signer, key.chain, nil
}

func (p *parties) AddVoucher(ctx context.Context, voucher *fdo.Voucher) error {
	return p.register.AddVoucher(ctx, voucher)
}

func (p *parties) Voucher(ctx context.Context, guid protocol.GUID) (*fdo.Voucher, error) {
	return p.register.Voucher(ctx, guid)
}

// ReplaceVoucher ends TO2: the new voucher goes to the next owner at once, who registers.
func (p *parties) ReplaceVoucher(ctx context.Context, old protocol.GUID, voucher *fdo.Voucher) error {
	if err := p.sell(ctx, voucher); err != nil {
		return err
	}
	if err := p.register.AddVoucher(ctx, voucher); err != nil {
		return err
	}
	p.register.forget(old)
	return p.announce(ctx, *voucher)
}

// ownerServer prints what devices report.
type ownerServer struct{ *fdo.TO2Server }

func (o ownerServer) HandleError(ctx context.Context, said protocol.ErrorMessage) {
	say(map[string]any{"error": said.Code, "after": said.PrevMsgType, "text": said.ErrString})
	o.TO2Server.HandleError(ctx, said)
}
