// SPDX-License-Identifier: GPL-2.0
/*
 * fence_net.c - no service packet while a guest is in two places.
 *
 * Every NIC (a net device with a parent device) is fenced by flow, both ways:
 * only the migration's own TCP and the address resolution it needs pass.
 * Outgoing frames are judged at ndo_start_xmit, below every queue and packet
 * socket; incoming ones at the ingress hook, above nothing but taps.
 *
 * The same override keeps packets away from suspended devices: virtio_net's
 * NAPI can wake the transmit queue between netif_device_detach() and
 * napi_disable(), and a TCP timer would then transmit through freed queues.
 */
#include <linux/etherdevice.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <net/ip.h>
#include <net/net_namespace.h>
#include <net/ndisc.h>

#include "smig.h"

#define MAX_NICS 16

struct fenced_nic {
	struct net_device *dev;
	netdevice_tracker tracker;
	const struct net_device_ops *real_ops;
	struct net_device_ops ops;
	struct nf_hook_ops ingress;
};

/*
 * nics and nr_nics change only under rtnl while the fence is open; the data
 * path finds its entry by the device's ops, which lie inside the entry.  Not
 * allocated: a guest that stops may have no block of several pages left.
 */
static struct fenced_nic nics[MAX_NICS];
static unsigned int nr_nics;
static bool installed;
static bool closed;
static atomic64_t tx_dropped, rx_dropped;

/* Replaced as a whole; readers are in softirq or hold the RCU read lock. */
static struct smig_flows __rcu *flows;

struct addresses {
	const void *from;
	const void *to;
};

static bool same(const void *a, const u8 *b, u32 family)
{
	return !memcmp(a, b, family == 4 ? 4 : 16);
}

static bool port_listed(const struct smig_flow *flow, const struct tcphdr *tcp)
{
	u32 i;

	for (i = 0; i < flow->nr_ports; i++)
		if (ntohs(tcp->source) == flow->ports[i] || ntohs(tcp->dest) == flow->ports[i])
			return true;
	return false;
}

static bool arp_allowed(const struct smig_flows *list, struct sk_buff *skb, int offset, bool out)
{
	struct {
		struct arphdr head;
		u8 sender_mac[ETH_ALEN];
		u8 sender[4];
		u8 target_mac[ETH_ALEN];
		u8 target[4];
	} __packed buffer, *arp;
	u32 i;

	arp = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	if (!arp || arp->head.ar_pln != 4 || arp->head.ar_hln != ETH_ALEN)
		return false;
	for (i = 0; i < list->nr_flows; i++) {
		const struct smig_flow *flow = &list->flows[i];

		if (flow->family != 4)
			continue;
		if (same(out ? arp->sender : arp->target, flow->local, 4))
			return true;
		if (!out && same(arp->sender, flow->peer, 4))
			return true;
	}
	return false;
}

/* TCP of a flow, and the ICMP without which it would stall on a small MTU. */
static bool transport_allowed(const struct smig_flows *list, struct sk_buff *skb, u32 family,
			      u8 protocol, struct addresses a, int offset, bool out)
{
	struct tcphdr tcp_buffer, *tcp;
	u8 type_buffer[24], *type;
	u32 i;

	for (i = 0; i < list->nr_flows; i++) {
		const struct smig_flow *flow = &list->flows[i];

		if (flow->family != family)
			continue;
		if (protocol == IPPROTO_TCP) {
			if (!same(out ? a.from : a.to, flow->local, family) ||
			    !same(out ? a.to : a.from, flow->peer, family))
				continue;
			tcp = skb_header_pointer(skb, offset, sizeof(tcp_buffer), &tcp_buffer);
			if (tcp && port_listed(flow, tcp))
				return true;
		} else if (protocol == IPPROTO_ICMP && family == 4) {
			type = skb_header_pointer(skb, offset, 2, type_buffer);
			if (type && !out && same(a.to, flow->local, 4) &&
			    type[0] == ICMP_DEST_UNREACH && type[1] == ICMP_FRAG_NEEDED)
				return true;
		} else if (protocol == IPPROTO_ICMPV6 && family == 6) {
			bool local = same(out ? a.from : a.to, flow->local, 6);

			type = skb_header_pointer(skb, offset, 24, type_buffer);
			if (!type)
				continue;
			if (type[0] == NDISC_NEIGHBOUR_SOLICITATION ||
			    type[0] == NDISC_NEIGHBOUR_ADVERTISEMENT) {
				/* a solicitation goes to a multicast address: look at its target */
				if (local || (!out && same(type + 8, flow->local, 6)))
					return true;
			} else if (!out && local && type[0] == ICMPV6_PKT_TOOBIG) {
				return true;
			}
		}
	}
	return false;
}

/* @offset: of the network header in @skb. */
static bool allowed(struct sk_buff *skb, __be16 protocol, int offset, bool out)
{
	const struct smig_flows *list = rcu_dereference(flows);

	if (!list)
		return false;
	switch (protocol) {
	case htons(ETH_P_ARP):
		return arp_allowed(list, skb, offset, out);
	case htons(ETH_P_IP): {
		struct iphdr buffer, *ip;

		ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
		if (!ip || ip->ihl < 5 || (ip->frag_off & htons(IP_OFFSET)))
			return false;
		return transport_allowed(list, skb, 4, ip->protocol,
					 (struct addresses){ &ip->saddr, &ip->daddr },
					 offset + ip->ihl * 4, out);
	}
	case htons(ETH_P_IPV6): {
		struct ipv6hdr buffer, *ip;

		ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
		if (!ip)
			return false;
		return transport_allowed(list, skb, 6, ip->nexthdr,
					 (struct addresses){ &ip->saddr, &ip->daddr },
					 offset + sizeof(buffer), out);
	}
	}
	return false;
}

static netdev_tx_t fence_xmit(struct sk_buff *skb, struct net_device *dev)
{
	const struct net_device_ops *ops = READ_ONCE(dev->netdev_ops);
	struct fenced_nic *nic;
	bool pass;

	/* the fence may have been removed since the caller looked */
	if (ops->ndo_start_xmit != fence_xmit)
		return ops->ndo_start_xmit(skb, dev);
	nic = container_of(ops, struct fenced_nic, ops);
	pass = netif_device_present(dev);

	if (pass && READ_ONCE(closed)) {
		struct ethhdr buffer, *eth = skb_header_pointer(skb, 0, sizeof(buffer), &buffer);

		rcu_read_lock();
		pass = eth && allowed(skb, eth->h_proto, ETH_HLEN, true);
		rcu_read_unlock();
	}
	if (likely(pass))
		return nic->real_ops->ndo_start_xmit(skb, dev);
	atomic64_inc(&tx_dropped);
	dev_kfree_skb_any(skb);
	return NETDEV_TX_OK;
}

static unsigned int fence_ingress(void *priv, struct sk_buff *skb,
				  const struct nf_hook_state *state)
{
	if (likely(!READ_ONCE(closed)) || allowed(skb, skb->protocol, 0, false))
		return NF_ACCEPT;
	atomic64_inc(&rx_dropped);
	return NF_DROP;
}

/* Under rtnl. */
static int fence_nics_of(struct net *net)
{
	struct net_device *dev;

	for_each_netdev(net, dev) {
		struct fenced_nic *nic = &nics[nr_nics];

		if (!dev->dev.parent || (dev->flags & IFF_LOOPBACK))
			continue;
		if (nr_nics == MAX_NICS) {
			pr_err("more than %d NICs\n", MAX_NICS);
			return -EOPNOTSUPP;
		}
		nic->dev = dev;
		netdev_hold(dev, &nic->tracker, GFP_KERNEL);
		nic->real_ops = dev->netdev_ops;
		nic->ops = *dev->netdev_ops;
		nic->ops.ndo_start_xmit = fence_xmit;
		nr_nics++;
		/* the entry is complete before the data path can find it */
		smp_wmb();
		WRITE_ONCE(dev->netdev_ops, &nic->ops);
	}
	return 0;
}

/*
 * The branches that lead to an ingress hook are opened once, at load: a stop
 * then patches no kernel text while the guest is under load.
 */
void smig_fence_net_init(void)
{
	net_inc_ingress_queue();
#ifdef CONFIG_JUMP_LABEL
	static_key_slow_inc(&nf_hooks_needed[NFPROTO_NETDEV][NF_NETDEV_INGRESS]);
#endif
}

void smig_fence_net_exit(void)
{
#ifdef CONFIG_JUMP_LABEL
	static_key_slow_dec(&nf_hooks_needed[NFPROTO_NETDEV][NF_NETDEV_INGRESS]);
#endif
	net_dec_ingress_queue();
}

/* Process context, fence open.  0 or an error with nothing installed. */
int smig_fence_net_install(void)
{
	struct net *net;
	unsigned int i;
	int ret = 0;

	if (WARN_ON(installed))
		return -EBUSY;
	installed = true;
	atomic64_set(&tx_dropped, 0);
	atomic64_set(&rx_dropped, 0);
	/* also the NICs that were given to a container */
	rtnl_lock();
	down_read(&net_rwsem);
	for_each_net(net)
		ret = ret ?: fence_nics_of(net);
	up_read(&net_rwsem);
	rtnl_unlock();
	for (i = 0; !ret && i < nr_nics; i++) {
		nics[i].ingress = (struct nf_hook_ops){
			.hook = fence_ingress,
			.pf = NFPROTO_NETDEV,
			.hooknum = NF_NETDEV_INGRESS,
			.dev = nics[i].dev,
			.priority = INT_MIN,
		};
		ret = nf_register_net_hook(dev_net(nics[i].dev), &nics[i].ingress);
		if (ret)
			nics[i].ingress.hook = NULL;
	}
	if (ret)
		smig_fence_net_remove();
	return ret;
}

/* Process context, fence open. */
void smig_fence_net_remove(void)
{
	unsigned int i;

	if (!installed)
		return;
	for (i = 0; i < nr_nics; i++)
		if (nics[i].ingress.hook) {
			nf_unregister_net_hook(dev_net(nics[i].dev), &nics[i].ingress);
			nics[i].ingress.hook = NULL;
		}
	rtnl_lock();
	for (i = 0; i < nr_nics; i++)
		if (nics[i].dev->netdev_ops == &nics[i].ops)
			WRITE_ONCE(nics[i].dev->netdev_ops, nics[i].real_ops);
	rtnl_unlock();
	/* transmitters run under the RCU read lock */
	synchronize_net();
	for (i = 0; i < nr_nics; i++)
		netdev_put(nics[i].dev, &nics[i].tracker);
	nr_nics = 0;
	installed = false;
}

/* Any context. */
void smig_fence_net_close(void)
{
	WRITE_ONCE(closed, true);
}

void smig_fence_net_open(void)
{
	WRITE_ONCE(closed, false);
}

/*
 * After the jump nothing may pass until the clone has its new addresses.  Irqs
 * off, one CPU: no reader.  The old list is not freed: it is part of the image.
 */
void smig_fence_net_forget_flows(void)
{
	struct smig_flows *list = rcu_dereference_protected(flows, true);

	if (list)
		list->nr_flows = 0;
}

static bool flow_is_sane(const struct smig_flow *flow)
{
	return (flow->family == 4 || flow->family == 6) &&
	       flow->nr_ports && flow->nr_ports <= SMIG_MAX_PORTS;
}

/* Process context, under smig.lock.  NULL forgets all. */
int smig_fence_net_set_flows(const struct smig_flows *new_flows)
{
	struct smig_flows *list = NULL, *old;
	u32 i;

	if (new_flows) {
		if (new_flows->nr_flows > SMIG_MAX_FLOWS || new_flows->reserved)
			return -EINVAL;
		for (i = 0; i < new_flows->nr_flows; i++)
			if (!flow_is_sane(&new_flows->flows[i]))
				return -EINVAL;
		list = kmemdup(new_flows, sizeof(*new_flows), GFP_KERNEL);
		if (!list)
			return -ENOMEM;
	}
	old = rcu_replace_pointer(flows, list, lockdep_is_held(&smig.lock));
	if (old) {
		synchronize_rcu();
		kfree(old);
	}
	return 0;
}

void smig_fence_net_counts(u64 *tx, u64 *rx)
{
	*tx = atomic64_read(&tx_dropped);
	*rx = atomic64_read(&rx_dropped);
}
