/** How many sessions one client may create, where nobody says otherwise. */
export const SESSIONS_PER_CLIENT = 10_000;
