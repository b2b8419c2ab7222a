/** By which a program ends that does not say otherwise, and somebody means it to (signal(7)). */
export const signalsToEnd: readonly NodeJS.Signals[] = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'];
