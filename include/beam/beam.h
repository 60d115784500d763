/* Beam: services that find and consume each other between threads, processes and machines.
 *
 * Read the headers in this order; each is one chapter.
 */
#ifndef BEAM_H
#define BEAM_H

#include <beam/error.h>   /* what can go wrong, and how a request ends */
#include <beam/kv.h>      /* the format of metadata and documents */
#include <beam/runtime.h> /* reactors, threads, time */
#include <beam/message.h> /* what is sent */
#include <beam/channel.h> /* how it flows */
#include <beam/session.h> /* to whom */
#include <beam/service.h> /* who answers */

#endif
