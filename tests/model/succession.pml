/* The succession protocol of docs/protocol.md, small enough for a search of everything that can happen. Rule numbers are
 * those of that page.
 *
 * No counters: a term, a beat or a server identity only ever matters by whether it EQUALS the one in the database now, so
 * each holder of such a value keeps a flag "still equal", which every write to the database clears. A lossy failover puts
 * an older throne row back: flags ..r say whether the value equals the replica's. Time is discrete; all timers are relative
 * and saturate. A node has at most one outstanding request and one late request, whose sender gave it up.
 *
 * Modelled: rules 1 to 6, 8, 9 and 11, and asynchronous failover, any number of times. Not modelled: seniority (rule 7; it
 * only restricts who may accede), two primaries that both acknowledge commits (excluded by assumption), a lease that an
 * operator changes (tests/sim does that), the keeper as a process of its own (here it and the tree are one).
 *
 * By hand, all that can happen within 30 steps, or without -m everything:
 *   spin -a succession.pml && cc -O2 -w -DSAFETY -DBFS -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c && ./pan -w26 -m30
 * and with three nodes: spin -DN=3 -a succession.pml.
 * Mutations, for `spin -DNAME -a`, each a way to get a rule wrong that the search must catch:
 *   NEW_ROW_TRUSTED      5  a new throne row counts as written on this server
 *   NO_IDENTITY_WAIT     5  nobody waits after another server answers
 *   LEASE_FROM_REPLY     2  a lease counts from the reply to the renewal
 *   SHORT_OBSERVATION    4  a silent heir is deposed before a whole lease is over
 *   BLIND_CAS            1  an accession does not compare what its candidate saw
 *   LATE_ACCESSION_KEPT  9  an answer to an accession counts however late it comes
 *   TERM_REOPENED        8  a scheduler runs on under a term whose abdication has been sent
 *   REGISTER_UNGUARDED  11  a late registration of an older generation is carried out
 */
#ifndef N
#define N 2
#endif
#ifndef L
#define L 2
#endif
#define NOBODY 7
#define OBSERVED (ob_age[n] >= WAIT)
#ifdef SHORT_OBSERVATION
#define WAIT (L-1)
#else
#define WAIT L
#endif
#ifdef NO_IDENTITY_WAIT
#define IDENTITY_OK true
#else
#define IDENTITY_OK (ob_home[n] || id_age[n] >= L)
#endif

/* database: who holds the throne, and whether the last accession was made on this very server */
byte heir = NOBODY; bool home;
byte heir_r = NOBODY; /* the replica's idea of it */
bool lag, tlag; /* replica's row, replica's term differ from the primary's */

/* node */
bool live[N]; byte left[N]; /* scheduler tree lives; what its keeper has left of the lease */
bool my[N]; bool my_r[N]; /* my term is the database's (replica's) current term */
bool ot[N]; bool ot_r[N]; /* the term last observed is still current */
/* the last observation: is there one, does it still show the database as it is, what it showed, for how long unchanged */
bool ob[N]; bool ob_cur[N]; byte ob_heir[N]; bool ob_home[N]; byte ob_age[N];
bool id_cur[N]; byte id_age[N]; /* known server identity is still the server's; known for how long */
bool reg[N]; /* registered in this life */

/* outstanding request: 0 none, 1 heartbeat, 2 accede, 3 abdicate, 4 register; executed or not; age; term or token */
byte rq[N]; bool done[N]; byte age[N]; bool rt[N]; bool rt_r[N]; bool rc[N];
/* the reply on its way: granted, what it shows, whether that is what was observed before */
bool y_ok[N]; bool y_same[N]; bool y_cur[N]; byte y_heir[N]; bool y_home[N];
bool y_idsame[N]; bool y_idcur[N]; bool yt[N]; bool yt_r[N];
/* late request; zg: no newer registration has been executed */
byte zq[N]; bool zt[N]; bool zt_r[N]; bool zc[N]; bool zg[N];
byte i;
bool okv;

#define EACH_NODE(body) i=0; do :: i<N -> body; i++ :: else -> break od; i=0

inline row_changed() { EACH_NODE(ob_cur[i]=0; y_cur[i]=0; rc[i]=0; zc[i]=0); lag=1 }
inline term_changed() { EACH_NODE(my[i]=0; rt[i]=0; zt[i]=0; yt[i]=0; ot[i]=0); tlag=1 }
inline vacate() { heir=NOBODY; row_changed() }

inline execute(n, q, t, c, fresh) {
  okv=0;
  if
  :: q==1 -> if :: heir==n && t -> row_changed(); okv=1 :: else fi
#ifdef BLIND_CAS
  :: q==2 -> heir=n; home=1; row_changed(); term_changed(); okv=1
#else
  :: q==2 -> if :: c -> heir=n; home=1; row_changed(); term_changed(); okv=1 :: else fi
#endif
  :: q==3 -> if :: heir==n && t -> vacate(); okv=1 :: else fi
#ifdef REGISTER_UNGUARDED
  :: q==4 -> if :: heir==n -> vacate() :: else fi; okv=1
#else
  :: q==4 -> if :: fresh -> if :: heir==n -> vacate() :: else fi; okv=1 :: else fi
#endif
  fi
}
inline forget_request(n) {
  rq[n]=0; done[n]=0; age[n]=0; rt[n]=0; rt_r[n]=0; rc[n]=0;
  y_ok[n]=0; y_same[n]=0; y_cur[n]=0; y_heir[n]=0; y_home[n]=0; y_idsame[n]=0; y_idcur[n]=0; yt[n]=0; yt_r[n]=0
}
inline forget_observation(n) {
  ob[n]=0; ot[n]=0; ot_r[n]=0; ob_cur[n]=0; ob_heir[n]=0; ob_home[n]=0; ob_age[n]=0; id_cur[n]=0; id_age[n]=0
}
inline stop(n) { live[n]=0; left[n]=0; my[n]=0; my_r[n]=0 }
inline send(n, q) { rq[n]=q; done[n]=0; age[n]=0 }
#define MAY_ACCEDE(n) (reg[n] && !live[n] && ob[n] && IDENTITY_OK && \
                       (ob_heir[n]==NOBODY || (OBSERVED && ob_heir[n]!=n)))

proctype Node(byte n) {
end: do
  :: d_step { rq[n]==0 && reg[n] -> /* heartbeat, a renewal if heir */
       send(n,1); if :: live[n] -> rt[n]=my[n]; rt_r[n]=my_r[n] :: else fi }
  :: d_step { rq[n]==0 && MAY_ACCEDE(n) -> send(n,2); rc[n]=ob_cur[n] }
#ifdef TERM_REOPENED
  :: d_step { rq[n]==0 && live[n] -> send(n,3); rt[n]=my[n]; rt_r[n]=my_r[n] }
#else
  :: d_step { rq[n]==0 && live[n] -> send(n,3); rt[n]=my[n]; rt_r[n]=my_r[n]; stop(n) }
#endif
  :: d_step { rq[n]==0 && reg[n] && !live[n] && ob[n] && ob_heir[n]==n -> /* held but not running: give it back */
       send(n,3); rt[n]=ot[n]; rt_r[n]=ot_r[n] }
  :: d_step { live[n] -> stop(n) } /* scheduler ends, keeper has reaped it */
  :: d_step { rq[n]==0 && !live[n] && reg[n] -> /* wrapper restarts: holds the lock, tree is dead */
       reg[n]=0; forget_observation(n) }
  :: d_step { rq[n]==0 && !reg[n] -> send(n,4) }
  :: d_step { rq[n]!=0 && !done[n] -> /* the database carries it out */
       execute(n, rq[n], rt[n], rc[n], true);
       if :: rq[n]==4 -> zg[n]=0 :: else fi;
       y_ok[n]=okv; y_same[n]=ob_cur[n]; y_cur[n]=1; y_heir[n]=heir; y_home[n]=home;
       y_idsame[n]=id_cur[n]; y_idcur[n]=1;
       yt[n]=1; yt_r[n]=!tlag; okv=0; done[n]=1 }
  :: d_step { rq[n]!=0 && done[n] -> /* the reply arrives */
       if :: rq[n]==4 -> if :: y_ok[n] -> reg[n]=1 :: else fi :: else fi;
       if :: !ob[n] || !y_idsame[n] -> id_age[n]=0 :: else fi;
       id_cur[n]=y_idcur[n];
       if :: !ob[n] || !y_same[n] || !y_idsame[n] -> ob_age[n]=0 :: else fi;
       ob[n]=1; ot[n]=yt[n]; ot_r[n]=yt_r[n];
       ob_cur[n]=y_cur[n]; ob_heir[n]=y_heir[n]; ob_home[n]=y_home[n];
       if
       :: rq[n]==1 && live[n] && y_ok[n] ->
#ifdef LEASE_FROM_REPLY
            left[n]=L
#else
            if :: age[n]<L && L-age[n]>left[n] -> left[n]=L-age[n] :: else fi
#endif
       :: rq[n]==1 && live[n] && !y_ok[n] -> stop(n)
#ifdef LATE_ACCESSION_KEPT
       :: rq[n]==2 && y_ok[n] -> live[n]=1; left[n]=L; my[n]=yt[n]; my_r[n]=yt_r[n]
#else
       :: rq[n]==2 && y_ok[n] && age[n]<L -> live[n]=1; left[n]=L-age[n]; my[n]=yt[n]; my_r[n]=yt_r[n]
#endif
       :: else
       fi;
       forget_request(n);
       assert(!(live[0] && live[1]));
#if N>2
       assert(!(live[0] && live[2])); assert(!(live[1] && live[2]))
#endif
     }
  :: d_step { rq[n]!=0 && done[n] -> forget_request(n) } /* reply lost */
  :: d_step { rq[n]!=0 && !done[n] && zq[n]==0 -> /* sender gives up; the request may still execute */
       zq[n]=rq[n]; zt[n]=rt[n]; zt_r[n]=rt_r[n]; zc[n]=rc[n]; zg[n]=(rq[n]==4);
       forget_request(n) }
  :: d_step { rq[n]!=0 && !done[n] -> forget_request(n) } /* request lost */
  :: d_step { zq[n]!=0 -> /* a late request is carried out */
       execute(n, zq[n], zt[n], zc[n], zg[n]); okv=0; zq[n]=0; zt[n]=0; zt_r[n]=0; zc[n]=0; zg[n]=0 }
  od
}
init {
  atomic { run Node(0); run Node(1);
#if N>2
    run Node(2)
#endif
  };
end: do
  :: d_step { /* a tick */
      i=0; do
      :: i<N ->
        if :: live[i] -> if :: left[i]>0 -> left[i]-- :: else fi;
          if :: left[i]==0 -> live[i]=0; my[i]=0; my_r[i]=0 :: else fi
        :: else fi;
        if :: ob_age[i]<L -> ob_age[i]++ :: else fi;
        if :: id_age[i]<L -> id_age[i]++ :: else fi;
        if :: rq[i]!=0 && age[i]<L -> age[i]++ :: else fi;
        i++
      :: else -> break od; i=0 }
  :: d_step { lag -> heir_r=heir; lag=0; tlag=0; /* the replica catches up */
      EACH_NODE(my_r[i]=my[i]; ot_r[i]=ot[i]; rt_r[i]=rt[i]; zt_r[i]=zt[i]; yt_r[i]=yt[i]) }
#ifdef NEW_ROW_TRUSTED
  :: d_step { heir_r==NOBODY -> heir=NOBODY; home=1; lag=0; tlag=0;
#else
  :: d_step { heir=heir_r; home=0; lag=0; tlag=0; /* failover: what was not replicated is lost; a new identity */
#endif
      EACH_NODE(my[i]=my_r[i]; ot[i]=ot_r[i]; rt[i]=rt_r[i]; zt[i]=zt_r[i]; yt[i]=yt_r[i];
        ob_cur[i]=0; y_cur[i]=0; rc[i]=0; zc[i]=0; id_cur[i]=0; y_idcur[i]=0) }
  od
}
