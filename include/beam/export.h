/* Marks what the shared library exports; everything else is hidden. */
#ifndef BEAM_EXPORT_H
#define BEAM_EXPORT_H

#define BEAM_EXPORT __attribute__((__visibility__("default")))

#endif
