/* audience.h: who is sent what comes from the first connection, for a server that broadcasts.
 *
 * To be included behind `struct connection`, which has a `size_t index` for its place in the array. */
#ifndef AUDIENCE_H
#define AUDIENCE_H

#include "native.h"

static struct connection **connections;
static size_t connection_count;
static size_t connection_room;
static struct connection *first;
static size_t congestion; /* how many have more waiting for them than they should */

static void audience_add(struct connection *connection)
{
    if (connection_count == connection_room) {
        connection_room = connection_room ? 2 * connection_room : 64;
        connections = (struct connection **)allocate(connections, connection_room * sizeof *connections);
    }
    connection->index = connection_count;
    connections[connection_count++] = connection;
    if (!first)
        first = connection;
}

static void audience_remove(struct connection *connection)
{
    connections[connection->index] = connections[--connection_count];
    connections[connection->index]->index = connection->index;
    if (connection == first)
        first = NULL;
}

#endif
