/* le_list.h: doubly linked lists with the links inside the members: no allocation, and leaving is O(1). */
#ifndef LE_LIST_H
#define LE_LIST_H

#include <stddef.h>

/* A link is a member (next is NULL while it is in no list) or the head of a ring of members. */
struct le_link {
    struct le_link *next;
    struct le_link *prev;
};
_Static_assert(sizeof(struct le_link) == 2 * sizeof(void *), "le_link is part of the ABI of watcher kinds");

#define LE_CONTAINER(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

static inline void le_list_init(struct le_link *head)
{
    head->next = head->prev = head;
}

static inline int le_list_is_empty(const struct le_link *head)
{
    return head->next == head;
}

static inline int le_link_is_in(const struct le_link *link)
{
    return link->next != NULL;
}

static inline void le_list_push(struct le_link *head, struct le_link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void le_link_leave(struct le_link *link)
{
    if (link->next) {
        link->next->prev = link->prev;
        link->prev->next = link->next;
        link->next = link->prev = NULL;
    }
}

static inline struct le_link *le_list_pop(struct le_link *head)
{
    struct le_link *link = head->next;
    if (link == head)
        return NULL;
    le_link_leave(link);
    return link;
}

#endif
