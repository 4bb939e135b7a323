/* setup_flags.h: flags of a ring that are newer than the headers of liburing 2.3. */
#ifndef SETUP_FLAGS_H
#define SETUP_FLAGS_H

#include <liburing.h>

#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

#endif
