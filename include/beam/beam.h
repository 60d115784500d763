/* Beam: services that find and consume each other between threads, processes and machines.
 *
 * A program makes a *runtime*, which has one or more *reactors*: threads that do all the work. Over
 * a *session* with a peer it asks for *services* and offers its own. What is said is a *message*,
 * on a *channel*. The headers are chapters, to be read in this order; runtime.h says which function
 * may be called on which thread. */
#ifndef BEAM_H
#define BEAM_H

#include <beam/error.h>   /* what can go wrong, and how a request ends */
#include <beam/buffer.h>  /* bytes that grow */
#include <beam/kv.h>      /* keys and values: what metadata is made of */
#include <beam/codec.h>   /* the same values in other formats */
#include <beam/runtime.h> /* reactors, threads, time */
#include <beam/message.h> /* what is sent */
#include <beam/channel.h> /* how it flows */
#include <beam/session.h> /* to whom */
#include <beam/dialer.h>  /* ... again and again */
#include <beam/service.h> /* who answers */
#include <beam/store.h>   /* what is kept, changed and followed */

#endif
